"""Where models come from: Civitai, Hugging Face and plain addresses; how they are fetched, checked and put on a shelf.

Everything here asks the network only because the user ran a command that says so, and trusts nothing that answers.
"""
