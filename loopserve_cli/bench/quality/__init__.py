"""What a method costs in quality: `python -m loopserve_cli.bench.quality recall|density|compression`.

| | |
|---|---|
| __main__ | the three commands: options, loading, length by length, tables, one document |
| options | what each of them may be asked for |
| questions | dialogues in turns, and what is asked after each of them |
| answers | answers by kind, position and turn; accuracy is the share right with its interval |
| recall | how many answers are exactly right, by the dialogue's length |
| compression, combination | the same under every compressed profile and budget |
| density, density_run | how many entries a share of attention's mass costs: of a head, over dialogues |
| reader, engine_reader | who reads and answers: plain transformers, or the engine under a profile |
| tables | all of it for a terminal |
"""
