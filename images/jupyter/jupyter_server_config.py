# Jupyter Server in every user image.
#
# Homes may be network volumes, on which SQLite corrupts: every database is kept in the container.

# ruff: noqa: F821, S108

c = get_config()

c.ServerApp.default_url = "/lab"
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}
c.LabApp.extension_manager = "readonly"  # nothing can be installed beside the image's own

c.NotebookNotary.db_file = "/tmp/jupyter-signatures.sqlite"
c.BaseFileIdManager.db_path = "/tmp/jupyter-file-ids.sqlite"
c.SQLiteYStore.db_path = "/tmp/jupyter-collaboration.sqlite"

# A trash in the home would fill the volume with what a person believes deleted.
c.FileContentsManager.delete_to_trash = False
