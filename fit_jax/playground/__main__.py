"""Opens a web page on which a trained model is asked, compared with another one and tricked.

    python -m fit_jax.playground RUN [RUN2]

The page is served on this machine alone unless --host says otherwise, and tells nobody anything. With --export it is
written as a folder for Hugging Face Spaces.
"""

import socket
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from fit_jax.cli import execute, run
from fit_jax.errors import InputError, reason
from fit_jax.foreign import is_installed, shown
from fit_jax.options import Parser, add_checkpoint, add_trust_code, new_folder

_HERE, PORT = "127.0.0.1", 7860


def add_options(parser: Parser) -> None:
    """The runs, where the page is served or written."""
    parser.add_argument("folder", metavar="RUN", help="the run_dir of a training run")
    parser.add_argument("other", metavar="RUN2", nargs="?", help="another run of the same task, to compare with")
    parser.add_argument(
        "--before", action="store_true", help="compare with the model before tuning; takes the place of RUN2"
    )
    add_checkpoint(parser)
    add_trust_code(parser)
    about = "address to serve the page at (default: this machine alone); 0.0.0.0 lets everyone in who can reach it"
    parser.add_argument("--host", metavar="ADDRESS", help=about, default=_HERE)
    parser.add_argument("--port", metavar="N", type=int, help=f"port (default: {PORT}, or another that is free)")
    parser.add_argument(
        "--export",
        metavar="FOLDER",
        help="write the page as a Hugging Face Space, and serve nothing",
        type=new_folder("--export"),
    )
    parser.set_defaults(run=_play, config=[])


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.playground", __doc__, add_options, arguments)


def _play(given: Namespace) -> None:
    if not is_installed("gradio"):
        raise InputError("playground: needs Gradio, which is not installed; pip install 'gradio>=6,<7'")
    if given.before and given.other is not None:
        raise InputError("--before: takes the place of RUN2; give one of them")
    port = None if given.export else free_port(given.host, given.port)
    import fit_jax
    from fit_jax.parallel.config import MeshConfig
    from fit_jax.parallel.processes import start
    from fit_jax.playground.models import load_models, warm_up

    start(MeshConfig())
    first = fit_jax.load(given.folder, given.checkpoint, trust_code=given.trust_code)
    asked = (first, given.folder, given.other, given.checkpoint, given.before, given.trust_code)
    if given.export:
        from fit_jax.playground.space import write_space

        models = load_models(*asked)
        write_space(given.export, list(models.items()))
        print(f"{given.export}: ready to be pushed to a Space; README.md says what it holds of the data", flush=True)
        return

    def ready() -> dict[str, fit_jax.FocusModel]:
        models = load_models(*asked)
        warm_up(models)
        return models

    # Importing Gradio takes seconds; meanwhile the models compile what answers take. The page holds the first ones.
    with ThreadPoolExecutor(1) as work:
        coming = work.submit(ready)
        from fit_jax.playground.app import page, serve

        models = coming.result()
    assert port is not None  # there is one unless the page is only written
    address = serve(page(models), given.host, port)
    print(f"playground: {address} (Ctrl-C ends it)", flush=True)
    if given.host not in (_HERE, "localhost"):
        print("everyone who can reach this machine can ask the model and read the rows that it offers", flush=True)
    threading.Event().wait()


def free_port(host: str, wanted: int | None) -> int:
    """A port to serve at: the wanted one, or the usual one, or any where that is taken.

    Raises:
        InputError: The wanted one is taken or is none, or the address is not of this machine.
    """
    if wanted is not None and not 0 < wanted < 2**16:
        raise InputError(f"--port {wanted}: is no port; take one from 1 to 65535")
    tried = ""
    for port in (PORT, 0) if wanted is None else (wanted,):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return probe.getsockname()[1]
            except (OSError, TypeError, UnicodeError) as error:  # the latter two for what is no name of a host
                tried = f"port {port} ({reason(error)})"
    raise InputError(f"--host {shown(host)}: cannot serve at {tried}; choose another --port or --host")


if __name__ == "__main__":
    run(main)
