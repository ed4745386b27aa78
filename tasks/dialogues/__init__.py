"""Multi-turn conversations about molecules, made as LLaMo's were: exemplars, in-context generation, filtering.

    plan = Plan(data="chebi20", split="train", output=Path("dialogues.jsonl"))
    with open_making(plan, Offline(seed=0), Catalogue()) as making:
        manifest = making.run(lambda step, total: lambda done: None)

`Offline` writes them from facts that RDKit computes and from sentences of the caption; `Endpoint` asks a language model
behind an OpenAI-compatible address. Both answer in the same text form, and both pass the same filter, which computes
each statement that a molecule can decide anew from the SMILES.
"""
