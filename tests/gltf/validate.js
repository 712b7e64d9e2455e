// node validate.js FOLDER-OF-node_modules FILE.glb: Khronos' report on a file, as JSON.
const fs = require("fs");
const path = require("path");
const [modules, file] = process.argv.slice(2);
const validator = require(path.join(modules, "gltf-validator"));

validator
  .validateBytes(new Uint8Array(fs.readFileSync(file)), { maxIssues: 20 })
  .then((report) => console.log(JSON.stringify(report)));
