--[[
Brighten dark photographs with lumen from darktable. README.md beside this file says how to install and use it.

In darktable: the export module gets the target storage "brighten with lumen". Each selected image is developed and
exported in the chosen format; one run of `lumen enhance` brightens them all; the results lie in the folder `lumen`
beside the originals, are imported and grouped with them.

In darktable-cli: every picture that it exports is brightened in its place.

Settings, in darktable's preferences (Lua options) or as `--conf lua/lumen/NAME=VALUE`:
  command  the program, with its path where it is not in PATH ("lumen")
  options  more options of `lumen enhance`, such as "--model kind --only-dark"
]]

local dt = require "darktable"

local FOLDER = "lumen"
local WINDOWS = package.config:sub(1, 1) == "\\"
local lumen = {}

local function setting(name, default)
  local value = dt.preferences.read("lumen", name, "string")
  return (value == nil or value == "") and default or value
end

-- An argument as the shell takes it for itself.
function lumen.quote(text)
  if WINDOWS then
    return '"' .. text:gsub('"', "") .. '"'
  end
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- The shell line that brightens a file or folder.
function lumen.command(input, output, more)
  local words = { lumen.quote(setting("command", "lumen")), "enhance", lumen.quote(input), "-o", lumen.quote(output) }
  words[#words + 1] = "--json --quiet"
  words[#words + 1] = more
  words[#words + 1] = setting("options")
  local line = table.concat(words, " ")
  return WINDOWS and '"' .. line .. '"' or line -- cmd.exe takes the outer quotation marks away
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- The value of a field of a JSON line, where it is a string; nil for null or no such field. Lines are ASCII.
function lumen.field(line, name)
  local text = line:gsub("\\\\", "\\u005c"):gsub('\\"', "\\u0022"):match('[{ ,]"' .. name .. '": "([^"]*)"')
  if not text then
    return nil
  end
  text = text:gsub("\\([^u])", function(letter) return ESCAPES[letter] or letter end)
  text = text:gsub("\\u(d[89ab]%x%x)\\u(d[c-f]%x%x)", function(high, low)
    return utf8.char(0x10000 + ((tonumber(high, 16) - 0xd800) << 10) + tonumber(low, 16) - 0xdc00)
  end)
  return (text:gsub("\\u(%x%x%x%x)", function(digits)
    local code = tonumber(digits, 16)
    -- lumen writes a byte that is not UTF-8, in the name of a file, as U+DC80 to U+DCFF
    return code >= 0xdc80 and code <= 0xdcff and string.char(code - 0xdc00) or utf8.char(code)
  end))
end

-- Run lumen. Calls take(line) for each JSON line; returns whether every picture succeeded.
function lumen.run(input, output, more, take)
  local command = lumen.command(input, output, more)
  local pipe = assert(io.popen(command))
  local lines = 0
  while true do
    if dt.configuration.has_gui and not WINDOWS then
      dt.control.read(pipe) -- waits without stopping darktable
    end
    local line = pipe:read("l")
    if not line then
      break
    end
    lines = lines + 1
    take(line)
  end
  local succeeded = pipe:close()
  if not succeeded and lines == 0 then
    dt.print_error("lumen: failed: " .. command)
    dt.print("lumen did not run; see its path in the preferences, and `lumen doctor`")
  end
  return succeeded == true
end

local function report(line)
  local status = lumen.field(line, "status")
  if status == "failed" or status == "left" then
    local reason = lumen.field(line, "reason") or "failed"
    dt.print_error("lumen: " .. (lumen.field(line, "input") or "?") .. ": " .. reason)
    dt.print("lumen: " .. reason)
  end
  return status
end

-- "IMG_1.CR2" → "IMG_1_CR2.tif", a duplicate "IMG_1_CR2_02.tif": one name for each image of a folder.
function lumen.name(image, suffix)
  local stem, ending = image.filename:match("^(.*)%.([^.]*)$")
  local name = stem and stem .. "_" .. ending or image.filename
  if image.duplicate_index > 0 then
    name = string.format("%s_%02d", name, image.duplicate_index)
  end
  return name .. suffix
end

local function make_folder(path)
  return os.execute((WINDOWS and "mkdir " or "mkdir -p ") .. lumen.quote(path))
end

local function work_folder()
  local path = os.tmpname()
  os.remove(path)
  path = path .. "-lumen"
  make_folder(path)
  return path
end

local function remove_folder(path)
  os.execute((WINDOWS and "rmdir /s /q " or "rm -r ") .. lumen.quote(path))
end

-- Note an exported file of an image; it moves into a folder where no other image's has its name.
function lumen.add(batch, image, path)
  local place = batch[image.path] or { work = work_folder(), images = {}, count = 0 }
  batch[image.path] = place
  local name = lumen.name(image, path:match("%.[^.]*$") or "")
  local target = place.work .. "/" .. name
  if not os.rename(path, target) then
    os.execute((WINDOWS and "move " or "mv ") .. lumen.quote(path) .. " " .. lumen.quote(target))
  end
  place.images[name] = image
  place.count = place.count + 1
end

-- Brighten what `add` noted and import the results, grouped with their originals; returns how many there are.
function lumen.finish(batch, proceed)
  local made, taken, total = 0, 0, 0
  for _, place in pairs(batch) do
    total = total + place.count
  end
  for folder, place in pairs(batch) do
    lumen.run(place.work, folder .. "/" .. FOLDER, nil, function(line)
      local status, output = report(line), lumen.field(line, "output")
      local image = place.images[(lumen.field(line, "input") or ""):match("[^/\\]*$")]
      if image and output and (status == "done" or status == "kept") then
        local result = dt.database.import(output)
        if result then
          result:group_with(image.group_leader)
          made = made + 1
        end
      end
      taken = taken + 1
      if proceed then
        proceed(taken / total)
      end
    end)
    remove_folder(place.work)
  end
  return made
end

-- Brighten a file in its place. Where that fails, the file stays as it was; returns whether it succeeded.
function lumen.replace(path)
  local folder, name = path:match("^(.*[/\\])([^/\\]*)$")
  local work = (folder or "./") .. ".lumen-" .. os.time() .. "-" .. name
  make_folder(work)
  local status
  lumen.run(path, work .. "/" .. name, nil, function(line) status = report(line) end)
  local succeeded = status == "done" and os.rename(work .. "/" .. name, path)
  remove_folder(work)
  return succeeded == true
end

if dt.configuration.has_gui then
  dt.preferences.register("lumen", "command", "string", "lumen: program", "its path where PATH does not have it", "lumen")
  dt.preferences.register("lumen", "options", "string", "lumen: options", "of lumen enhance: --model kind", "")

  dt.register_storage("lumen", "brighten with lumen", function(_, image, _, path, _, _, _, batch)
    lumen.add(batch, image, path)
  end, function(_, _, batch)
    local job = dt.gui.create_job("lumen brightens", true)
    local made = lumen.finish(batch, function(part) job.percent = part end)
    job.valid = false
    dt.print("lumen brightened " .. made .. (made == 1 and " image" or " images"))
  end, function(_, format)
    return ({ JPEG = true, TIFF = true, PNG = true, ["PNG (8/16-bit)"] = true, WebP = true, AVIF = true })[format.name]
  end)
else
  dt.register_event("lumen", "intermediate-export-image", function(_, image, path)
    print("lumen: " .. image.filename .. (lumen.replace(path) and " brightened" or " NOT brightened"))
  end)
end

return lumen
