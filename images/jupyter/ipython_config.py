# IPython in every user image.

# ruff: noqa: F821, S108

c = get_config()

c.InteractiveShellApp.extensions = ["notebooks"]  # %mlflow_start_run and its like

c.HistoryManager.hist_file = "/tmp/ipython-history.sqlite"  # corrupts on network volumes
