// A job type for Flamenco 3 (https://flamenco.blender.org): a Triplane batch on a render farm.
//
// Put this file into the `scripts` folder beside Flamenco's manager and restart the manager. Submit a
// job of the type "Triplane Batch" through its API or from another job's script; examples/README.md
// shows how. All workers see the checkout, the manifest and the input files at the same paths.
//
// Each task runs some lines of the manifest. A task that fails or is interrupted may be run again at
// any time: what is done is skipped.

const JOB_TYPE = {
    label: "Triplane Batch",
    settings: [
        { key: "manifest", type: "string", subtype: "file_path", required: true,
          description: "The list of jobs: JSON lines, or a .csv" },
        { key: "lines", type: "string", required: true, default: "1-100",
          description: "Lines of the list to run, such as 1-100. The first line of a .csv names its columns" },
        { key: "chunk_size", type: "int32", default: 5, propargs: { min: 1 },
          description: "Lines in one task" },
        { key: "python", type: "string", required: true, default: "python3",
          description: "Python with the engine's packages, on the workers" },
        { key: "checkout", type: "string", subtype: "dir_path", required: true,
          description: "Folder that holds Triplane's folder engine" },
        { key: "device", type: "string", default: "auto",
          description: "What to compute on: auto, cpu, cuda, mps, xpu" },
    ]
};

// `python -m engine` for an engine that is in the folder given first, wherever the worker runs.
const START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    + "runpy.run_module('engine', run_name='__main__', alter_sys=True)";

function compileJob(job) {
    const settings = job.settings;
    for (const lines of frameChunker(settings.lines, settings.chunk_size)) {
        const task = author.Task(`lines-${lines}`, "misc");
        task.addCommand(author.Command("exec", {
            exe: settings.python,
            args: ["-c", START, settings.checkout, "batch", settings.manifest,
                   "--lines", lines, "--device", settings.device],
        }));
        job.addTask(task);
    }
}
