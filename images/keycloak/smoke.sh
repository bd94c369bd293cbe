# Keycloak runs on this Java and was built for the database and the probes that the platform uses.
set -euo pipefail
if command -v mvn; then echo "Maven belongs in the build stage" >&2; exit 1; fi
version=$(kc.sh --version)
config=$(kc.sh show-config)
echo "$version"
for expected in "Keycloak 26.7.3" "kc.db =  postgres (Persisted)" "kc.health-enabled =  true (Persisted)"; do
    if ! grep --quiet --fixed-strings "$expected" <<<"$version $config"; then
        echo "expected '$expected' in: $version $config" >&2
        exit 1
    fi
done
