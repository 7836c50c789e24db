"""Ask a model with and without a grammar, and say what parses, what is right and how long it took.

    python recipes/tasks/grammar.py RUN recipes/tasks/geoquery.lark test.tsv

The table has a source and a target in each line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from transduce import Transducer
from transduce.evaluate import ExactMatchBlueprint, evaluate
from transduce.search import Beam, Greedy, SearchBlueprint
from transduce.search.constrain import GrammarBlueprint, holds


def main() -> None:
    run, path, table = sys.argv[1:]
    rows = Path(table).read_text(encoding="utf-8").rstrip("\n").split("\n")
    sources, targets = zip(*(row.split("\t") for row in rows), strict=True)
    model, blueprint = Transducer.load(run), GrammarBlueprint(path=path)
    grammar = blueprint.grammar()
    own = sum(holds(grammar, target) for target in targets)
    print(f"{own} of {len(targets)} references are sentences of the grammar")
    searches: tuple[SearchBlueprint, ...] = (Greedy(), Beam(width=5))
    for search in searches:
        right: list[set[int]] = []
        for constraints in ((), (blueprint,)):
            begun = time.process_time()
            texts = [one.text for one in model(sources, search, constraints=constraints)]
            seconds = time.process_time() - begun
            parse = sum(holds(grammar, text) for text in texts)
            right.append({at for at, text in enumerate(texts) if text == targets[at]})
            score, *_ = evaluate(
                [ExactMatchBlueprint().build()], texts, [(target,) for target in targets]
            )
            name = "grammar" if constraints else "free"
            print(f"{search.kind:7} {name:8} {parse} parse  {score}  {seconds:.1f} s of CPU")
        free, bound = right
        print(f"        with the grammar {len(bound - free)} won, {len(free - bound)} lost")


if __name__ == "__main__":
    main()
