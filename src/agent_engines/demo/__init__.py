"""The demo: a small fleet doing real work, and a table of what came of it.

`digits` reads handwritten digits with four honest models, `driver` sends them in bursts, `results` counts and `table`
shows; `table_replay` replays any table of prompts, qualities and costs instead. Needs the extra `demo` for `digits`.
"""
