# IPython in every user image: its history is SQLite, which corrupts on network volumes.

# ruff: noqa: F821, S108

c = get_config()

c.HistoryManager.hist_file = "/tmp/ipython-history.sqlite"
