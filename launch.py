"""Command line of robust_saliency.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart
    python launch.py --mode=explain --workdir=runs/quickstart/seed0/linf --images=DIR

Any field of the config can be set: --config.train.epochs=3. Where the workdir holds a config, --config may be left out.
"""

import logging
import os
import sys
import traceback

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags

MODES = ("benchmark", "evaluate", "explain", "neurons", "report", "roar", "robustness", "study", "train")
_TOGETHER = ("evaluate", "study", "train")  # of these modes several processes share the work

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run or study; made if it is not there.")
_MODE = flags.DEFINE_string(
    "mode", "", f"One of {', '.join(MODES)}. Default: study if the config has runs, else train."
)
_MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "One of several processes of this run, each started with the same command: see docs/scale.md."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process, where nothing else says it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of images to explain (--mode=explain).")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"Arguments are given as --name=value, got {' '.join(argv[1:])}.")
    _set_up_jax()
    from robust_saliency import checks, config, processes

    if not _WORKDIR.value:
        raise UserError(_no_config(None))
    if _MODE.value:
        _check_alone(_MODE.value)
    if _MODE.value == "report":
        print(_report(_WORKDIR.value))
        return
    if flags.FLAGS.config is None:
        raise UserError(_no_config(_WORKDIR.value))
    plain = config.to_plain(flags.FLAGS.config)
    has_runs = bool((plain.get("study") or {}).get("runs"))
    mode = checks.one_of("mode", _MODE.value or ("study" if has_runs else "train"), MODES)
    _check_alone(mode)
    if _MULTIHOST.value:
        processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    result = _run(mode, plain, _WORKDIR.value)
    if result and processes.is_first():
        print(result)


def _check_alone(mode: str) -> None:
    """A mode that one process does is not for several, nor are their flags for one."""
    if _MULTIHOST.value and mode in MODES and mode not in _TOGETHER:
        shared = ", ".join(_TOGETHER)
        raise UserError(f"--mode={mode} is the work of one process: leave --multihost out. Several share {shared}.")
    given = {"coordinator": _COORDINATOR, "num_processes": _NUM_PROCESSES, "process_id": _PROCESS_ID}
    extra = [f"--{name}" for name, flag in given.items() if flag.value is not None]
    if extra and not _MULTIHOST.value:
        raise UserError(f"{' and '.join(extra)} say who the processes of a run are: give --multihost too.")


def _run(mode: str, plain: dict, workdir: str):
    from robust_saliency import config, workdirs

    if mode == "study":
        return _study(plain, workdir)
    if mode == "roar":
        from robust_saliency import roar

        return roar.roar(plain, workdir)
    if mode == "robustness" and workdirs.holds_study(workdir):
        from robust_saliency import study_robustness

        return study_robustness.study_robustness(plain, workdir)
    if mode == "neurons" and workdirs.holds_study(workdir):
        from robust_saliency import study_neurons

        return study_neurons.study_neurons(plain, workdir)
    # A single run's workdir must not remember a study: it would be one the next time.
    experiment = config.parse({name: section for name, section in plain.items() if name != "study"})
    if mode != "benchmark":
        workdirs.refuse_study(workdir)
    if mode == "train":
        from robust_saliency import train

        took = train.train(experiment, workdir)
        return f"{workdir}: {took['steps']} steps in {took['seconds']:.0f} s"
    if mode == "evaluate":
        from robust_saliency import evaluate

        return evaluate.evaluate(experiment, workdir)
    if mode == "robustness":
        from robust_saliency import robustness

        return robustness.robustness(experiment, workdir)
    if mode == "neurons":
        from robust_saliency import neuron_report

        return neuron_report.neuron_report(experiment, workdir)
    if mode == "explain":
        from robust_saliency import explain

        if _IMAGES.value is None:
            raise UserError("--mode=explain needs --images=DIR: the folder of images to explain.")
        return explain.explain(experiment, workdir, _IMAGES.value)
    from robust_saliency import benchmark

    return benchmark.benchmark(experiment, workdir)


def _report(workdir: str) -> str:
    from robust_saliency import report, workdirs

    with workdirs.Workdir(workdir, create=False):
        return str(report.report(workdir))


def _study(plain: dict, workdir: str) -> str:
    """The study, then the modes that its config names, over all runs, and its report again: claims are of them too."""
    from robust_saliency import processes, study, train

    settings = plain.get("study") or {}
    if not settings.get("runs"):
        raise UserError("--mode=study needs config.study.runs; this config has none.")
    if settings.get("modes") and processes.count() > 1:
        raise UserError("config.study.modes are the work of one process: leave them out, and run each afterwards.")
    diverged, page = None, ""
    try:
        page = study.study(plain, workdir)
    except train.Diverged as error:  # of some runs: the others are there
        diverged = error
    if settings.get("modes") and (page or os.path.exists(os.path.join(workdir, "report.html"))):
        with study.timed(workdir):
            for mode in settings["modes"]:
                _run(mode, plain, workdir)
        page = _report(workdir)
    if diverged:
        raise diverged
    return page


class UserError(Exception):
    """A mistake on the command line."""


def _set_up_jax() -> None:
    """One virtual device a core where the CPU computes, and a compilation cache outside every workdir."""
    from robust_saliency import disk, memory

    memory.keep_freed()
    # Only this project's warnings (a damaged checkpoint passed over) are for the user.
    logging.getLogger().setLevel(logging.ERROR)
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("Warning: %(message)s"))
    own = logging.getLogger("robust_saliency")
    own.setLevel(logging.WARNING)
    own.propagate = False
    own.addHandler(warnings)
    disk.mute_cut_off_tasks()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cores)
    if not jax.config.jax_compilation_cache_dir:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "robust_saliency", "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; without --config the config of the workdir is taken, and can be changed field by field."""
    from robust_saliency import config, config_file

    file, workdir = _given(argv, "config"), _given(argv, "workdir")
    path = os.path.join(workdir or "", "config.json")
    is_remembered = file is None and workdir and os.path.exists(path)
    plain = _remembered(path) if is_remembered else {}
    if file is not None:
        plain = config.to_plain(config_file.load(file))
    if plain:
        config_file.check_overrides(plain, argv)
    elif file is None and config_file.overrides(argv):
        raise UserError(_no_config(workdir))
    if is_remembered:
        config_flags.DEFINE_config_dict("config", ConfigDict(_as_given(plain)), lock_config=True)
    else:
        config_flags.DEFINE_config_file("config", None, "Config file: configs/quickstart.py.", lock_config=True)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(config_file.wrong_value(plain, str(error))) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(str(error.args[0] if error.args else error)) from error


def _remembered(path: str) -> dict:
    from robust_saliency import config_fields, records

    records.check_manifest(os.path.dirname(path))
    try:
        config = records.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{error} Give --config=FILE.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is no config: it holds {type(config).__name__}. Give --config=FILE.")
    from configs import common

    # A run of before there were these modes, or some field of theirs, can be asked for them too.
    later = common.default()
    for name in ("neurons", "roar"):
        held = config.get(name) or {}
        if isinstance(held, dict):
            config[name] = config_fields.merge(later[name].to_dict(), held, f"config.{name}")
    return config


def _no_config(workdir: str | None) -> str:
    """Why there is no config: neither a file nor the workdir of a run was given."""
    if not workdir:
        return "--workdir=DIR is needed: the folder of the run."
    there = "holds no config.json" if os.path.isdir(workdir) else "does not exist"
    return f"Workdir {workdir} {there}: give --config=FILE, or the workdir of a trained run."


def _given(argv: list[str], name: str) -> str | None:
    """The value of --name=value or --name value, before the flags are parsed."""
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        flag, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == name:
            return value if equals else following
    return None


def _as_given(value, name: str = ""):
    """JSON as the config was: lists were tuples, and null a placeholder; both can be overridden."""
    from robust_saliency import config_fields

    if isinstance(value, dict):
        return {field: _as_given(entry, field) for field, entry in value.items()}
    if value is None:
        return config_dict.placeholder(config_fields.type_of(name))
    return tuple(_as_given(entry) for entry in value) if isinstance(value, list) else value


def _is_message(error: BaseException) -> bool:
    """True where the error was raised on purpose, to be read: by this project's own code, or by the flags."""
    if isinstance(error, UserError | flags.Error):
        return True
    if not isinstance(error, ValueError | OSError):
        return False
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.abspath(raised_in).startswith(os.path.join(here, "robust_saliency") + os.sep)


def run() -> None:
    """Runs the command line; a mistake of the user is one message and exit status 2, never a traceback.

    75 where a scheduler ended it (SIGTERM), 130 after Ctrl-C: the same command goes on.
    """
    from robust_saliency import preemption, processes, supervision

    if supervision.is_due(sys.argv):
        sys.exit(supervision.supervise(sys.argv))
    preemption.listen()
    try:
        app.run(main, flags_parser=_parse_flags)
    except preemption.Stopped as stop:
        _end(str(stop), preemption.EXIT_STATUS)
    except KeyboardInterrupt:
        _end(
            "Interrupted; nothing on disk is lost. Training goes on from its last checkpoint with the same command.",
            130,
        )
    except SystemExit as end:
        # absl ends with 1 after --help; what was asked for was given.
        sys.exit(0 if {"--help", "-help", "--helpshort", "--helpfull"} & set(sys.argv) else end.code)
    except Exception as error:
        if _is_message(error):
            _end(f"Error: {error}", 2)
        if processes.is_of_another(error):
            print(f"{type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            _end(processes.ANOTHER_DIED, preemption.EXIT_STATUS)
        traceback.print_exc()
        processes.leave(1)


def _end(message: str, status: int) -> None:
    from robust_saliency import processes

    print(f"{processes.name()}{message}", file=sys.stderr)
    processes.leave(status)


if __name__ == "__main__":
    run()
