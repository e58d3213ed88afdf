"""The command line: push, push-results, push-space, pull."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fer_bench.errors import UserError
from fer_bench.files import OutputError, label
from fer_bench.hub import contents
from fer_bench.hub.client import HubError, Sent, There, Tree, checked_repo, fetch, pinned, send
from fer_bench.hub.contents import listing, model_tree, results_tree, space_tree, write_tree
from fer_bench.hub.folders import fetch_results
from fer_bench.infer import usual_recipe
from fer_bench.methods import METHODS
from fer_bench.protocols import recipe_for, track_named
from fer_bench.registry import UnknownNameError
from fer_bench.results import Result
from fer_bench.weights import find, index_held, index_key, read_index, sha256, weights_folder

NAMELESS = "NAMESPACE/NAME"
"""What a card calls its repository where that has no name yet."""
RESULTS = ("results/",)
"""Of the data set of results: others may have pushed some that are not here, which only --delete takes away."""
OWNED = {
    "model": ("results/", ".eval_results/"),
    "dataset": (),
    "space": ("fer_bench/", "leaderboard/", "weights/"),
}
"""The folders of each kind of repository that a push keeps equal to what is here, deletions included."""


def main(argv: list[str] | None = None) -> int:
    """Push to and pull from the Hub. Exit codes: 0 done, 1 failed (the Hub, or a file here), 2 wrong use."""
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except (HubError, OutputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (UserError, UnknownNameError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fer_bench.hub", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sending = argparse.ArgumentParser(add_help=False)
    where = "the repository; made, and public, if it does not exist"
    sending.add_argument("--repo", metavar="NAMESPACE/NAME", help=where)
    sending.add_argument("--dry-run", action="store_true", help="list what would be sent (path, bytes, SHA-256)")
    sending.add_argument("--replace", action="store_true", help="also where the repository holds something else")
    sending.add_argument("--to", metavar="dir:PATH", help="write the same files to a folder instead; no network")

    push = commands.add_parser("push", parents=[sending], help="a method's weights, card and results")
    push.add_argument("--method", required=True, metavar="NAME")
    push.add_argument("--track", default="fer2013", help="(%(default)s)")
    push.add_argument("--recipe", help="(the one on the method's card)")
    push.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    push.set_defaults(run=_push)
    results = commands.add_parser("push-results", parents=[sending], help="all results, as a dataset")
    results.add_argument("--delete", action="store_true", help="also delete the results there that are not here")
    results.set_defaults(run=_push_results)
    push.epilog = "Results there that are not of these weights are deleted, and named."
    results.epilog = "Results there that are not here stay, and stay rows of its table, unless --delete is given."
    space = commands.add_parser("push-space", parents=[sending], help="the demo, as a Space")
    space.epilog = "What is not here is deleted there from fer_bench/, leaderboard/ and weights/, and named."
    space.set_defaults(run=_push_space)

    pull = commands.add_parser("pull", help="fetch weights, by pinned commit and SHA-256, into the cache")
    which = pull.add_mutually_exclusive_group(required=True)
    which.add_argument("--method", nargs="+", metavar="NAME")
    which.add_argument("--all", action="store_true", help="every row that has a copy on the Hub")
    pull.add_argument("--track", help="only this track's")
    pull.add_argument("--recipe", help="only this recipe's")
    pull.add_argument("--seed", type=int, help="only this seed's")
    pull.set_defaults(run=_pull)
    return parser


def _deliver(
    options: argparse.Namespace, kind: str, tree: Tree, message: str, joined: Callable[[There], Tree] | None = None
) -> Sent | None:
    """Show, write or push a tree, as the options say. Returns what a push did.

    joined: makes what is pushed in place of `tree`, of what is there already.
    """
    if options.to is not None:
        scheme, _, folder = options.to.partition(":")
        if scheme != "dir" or not folder:
            raise UserError(f"--to {options.to!r} must be dir:PATH.")
    elif not options.repo:
        raise UserError("--repo NAMESPACE/NAME is missing: where shall it go? (--to dir:PATH writes to a folder)")
    repo = checked_repo(options.repo) if options.repo else None
    owned, kept = OWNED[kind], RESULTS if kind == "dataset" else ()
    if getattr(options, "delete", False):
        owned, kept = kept, ()
    if options.dry_run:
        rows = listing(tree)
        target = options.to or f"the {kind} {repo}"
        print(*(f"{sha}  {size:>12,}  {path}" for path, size, sha in rows), sep="\n")
        also = "; results that are only there would stay rows" if joined and options.to is None else ""
        if owned and options.to is None:
            also = f"; what is only there would be deleted from {', '.join(owned)}"
        size = sum(size for _, size, _ in rows)
        print(f"{len(rows)} files, {size:,} bytes, would go to {target}{also}; nothing was sent.")
        return None
    if options.to is not None:
        write_tree(tree, Path(folder).expanduser())
        print(f"{len(tree)} files written to {folder}")
        return None
    sent = send(repo, kind, joined or tree, message, owned, kept, options.replace)
    for path in sent.removed:
        print(f"deleted {label(path)}")
    if sent.left:
        shown = ", ".join(map(label, sent.left[:5])) + (" and others" if len(sent.left) > 5 else "")
        print(
            f"{repo}: {len(sent.left)} file(s) there are not here and were left, the results among them as rows of "
            f"{contents.PARQUET} too: {shown} (--delete deletes them)"
        )
    if sent.changed or sent.removed:
        removed = f", {len(sent.removed)} deleted" if sent.removed else ""
        print(f"{repo}: {len(sent.changed)} of {len(tree)} files sent{removed}; commit {sent.revision}")
    else:
        print(f"{repo}: nothing has changed since commit {sent.revision}; nothing was sent")
    return sent


def _home(name: str) -> str:
    """The track under whose name weights lie: a transfer track's home. UserError for pictures of one's own."""
    track = track_named(name)
    if ":" in track.name:
        raise UserError(
            f"{track.name}: weights of your own pictures are not sent or fetched, since their card would name the "
            "folder; python -m fer_bench.submissions export --runs makes a model of them to hand on."
        )
    return track.trained_on


def _push(options: argparse.Namespace) -> int:
    card = METHODS[options.method].card  # an unknown method or track is said before missing weights are
    track = _home(options.track)
    recipe = options.recipe or usual_recipe(options.method, track_named(track), options.seed)
    key = index_key(options.method, track, recipe, options.seed)
    entry = read_index().get(key)
    if entry is None:
        recipe_for(recipe, card)  # what is misspelt is not to be trained
        raise UserError(
            f"weights/index.json has no row {key}; train it, then enter it with: python -m fer_bench.weights add RUN"
        )
    tree = model_tree(entry, contents.ROOT, options.repo or NAMELESS)
    sent = _deliver(options, "model", tree, f"{options.method} on {track}")
    if sent is not None and (entry["hub"], entry["revision"]) != (options.repo, sent.revision):
        path = weights_folder() / "index.json"
        with index_held() as index:  # read again: an upload takes its time
            if index.get(key, {}).get("sha256") != entry["sha256"]:
                raise UserError(f"{path}: {key} was changed meanwhile; push once more.")
            index[key] |= {"hub": options.repo, "revision": sent.revision}
        print(f"{path}: {key} is pinned to {options.repo} at {sent.revision}")
    return 0


def _push_results(options: argparse.Namespace) -> int:
    repo = options.repo or NAMELESS
    tree = results_tree(repo, contents.ROOT)
    known: dict[tuple[str, str], Result] = {}

    def joined(there: There) -> Tree:
        """Table and card with the rows that are only there too, or a push would drop them from these two."""
        others = fetch_results(repo, there, tree, known)
        return results_tree(repo, contents.ROOT, others) if others else tree

    _deliver(options, "dataset", tree, "Results", None if options.delete else joined)
    return 0


def _push_space(options: argparse.Namespace) -> int:
    _deliver(options, "space", space_tree(contents.ROOT), "The demo")
    return 0


def _pull(options: argparse.Namespace) -> int:
    for name in options.method or ():
        METHODS[name]
    if options.track is not None:
        options.track = _home(options.track)
    wanted = {key: getattr(options, key) for key in ("track", "recipe", "seed") if getattr(options, key) is not None}
    rows = [
        entry
        for entry in read_index().values()
        if (options.all or entry["method"] in options.method) and all(entry[k] == v for k, v in wanted.items())
    ]
    absent = set(options.method or ()) - {entry["method"] for entry in rows}
    if absent:
        rows = [key for key in read_index() if key.partition("/")[0] in absent]
        known = f"its rows of it are {', '.join(rows)}." if rows else "python -m fer_bench.train makes them."
        raise UserError(f"weights/index.json has no such row of {', '.join(sorted(absent))}; {known}")
    if not rows:
        asked = "".join(f" --{key} {value}" for key, value in wanted.items())
        raise UserError(f"{weights_folder() / 'index.json'} has no row for --all{asked}; there is nothing to fetch.")
    failed = 0
    for entry in rows:
        row = f"{entry['method']} ({entry['track']}, {entry['recipe']}, seed {entry['seed']})"
        here = find(entry["method"], entry["track"], entry["recipe"], entry["seed"])
        same = here is not None and sha256(here) == entry["sha256"]
        if same:
            print(f"{row}: already here, {here}")
        elif options.all and not entry["hub"]:
            print(f"{row}: not here, and it has no copy on the Hub")
        else:
            pinned(entry)  # wrong use ends the command; a failing Hub leaves the other rows their chance
            try:
                print(f"{row}: fetched, {fetch(entry)}")
            except HubError as error:
                failed += 1
                print(f"error: {row}: {error}", file=sys.stderr)
        if here is not None and not same and here.parent == weights_folder():
            failed += 1
            text = f"{here} is not the file of weights/index.json (another SHA-256) and hides the right one; remove it."
            print(f"error: {row}: {text}", file=sys.stderr)
    return 1 if failed else 0
