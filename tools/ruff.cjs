// Runs ruff's WebAssembly build over files. Standard input: {module, options, files}; ends with 1 when it finds fault.
const fs = require("fs");

const { module: path, options, files } = JSON.parse(fs.readFileSync(0, "utf8"));
const { Workspace, PositionEncoding } = require(path);
const workspace = new Workspace(options, PositionEncoding.Utf32);
let found = 0;
for (const file of files) {
    for (const { code, message, start_location: at } of workspace.check(fs.readFileSync(file, "utf8"))) {
        console.log(`${file}:${at.row}:${at.column}: ${code ?? "syntax"} ${message}`);
        found++;
    }
}
process.exit(found ? 1 : 0);
