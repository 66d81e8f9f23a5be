"""The model card: facts from a run's JSON files, a template, and a pure function between them.

facts = CardFacts.from_folder(Path("runs/sample"))      # model_card.facts
text = render_card(facts, repo_id="user/repo")          # model_card.render
validate_card(text)                                     # model_card.front_matter
"""
