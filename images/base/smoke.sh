# What every image relies on.
set -euo pipefail
test "$(id -u):$(id -g)" = 1000:100
test "$HOME" = /home/jovyan && test -w "$HOME"
for absent in sudo gcc make; do
    if command -v "$absent"; then echo "$absent does not belong in an image" >&2; exit 1; fi
done
test -z "$(find / -xdev -type f -perm /6000 2>/dev/null)"
for present in tini git curl pip uv python python3; do command -v "$present" >/dev/null; done
test "$(locale charmap)" = UTF-8
python3 -c 'import sys; assert sys.version_info[:2] == (3, 11), sys.version'
python3 -m venv --help >/dev/null
pip --version
uv --version
for named in pkg:pypi/uv@ pkg:deb/debian/tini@; do
    grep --quiet "\"purl\": \"$named" /usr/local/share/sbom/mlhub.cdx.json
done
# What a build step trusted and was given is gone with it (trust.sh).
for left in /run/trust /run/secrets; do
    if [ -e "$left" ]; then echo "$left does not belong in an image" >&2; exit 1; fi
done
