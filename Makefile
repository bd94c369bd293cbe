# What a person runs. Each target is one command of the program beneath it; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
ENGINE := .venv/run.stamp policies/.venv/run.stamp
STACK ?= local
RESULTS := .mlhub/results
# Python keeps what it compiles: the tests start hundreds of interpreters, each twice as dear without.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# These are about what this machine runs; another stack is not meant.
LOCAL_ONLY = $(if $(filter-out local,$(STACK)),echo '`make $@` is for the embedded stack; for $(STACK): $(1)' >&2; exit 2;)

up: $(ENGINE) ## set everything up and apply the local stack, to a log-in page
	@$(call LOCAL_ONLY,`pulumi up --stack $(STACK) --policy-pack policies`) $(PYTHON) -m bootstrap up

down: .venv/run.stamp ## stop what `make up` started; data stays (ARGS=--purge-data removes it)
	@$(call LOCAL_ONLY,`make destroy STACK=$(STACK)`) $(PYTHON) -m bootstrap down $(ARGS)

status: .venv/run.stamp ## each part of the platform, its health, memory and address
	@$(call LOCAL_ONLY,`make verify STACK=$(STACK)`) $(PYTHON) -m bootstrap status

doctor: .venv/run.stamp ## what is missing on this machine, and what to do
	@$(PYTHON) -m bootstrap doctor

password: .venv/run.stamp ## print a demo user's password: make password USER=alice
	@$(PYTHON) -m bootstrap password $(USER)

# The local stack brings its own state and cluster; of another one they are yours.
LOCAL_ENV = eval "$$($(PYTHON) -m bootstrap env)"
THEIR_ENV = export PATH="$(CURDIR)/.mlhub/bin:$$PATH"

preview: $(ENGINE) ## what would change, dangers first: make preview STACK=prod BASE=main
	@$(if $(filter local,$(STACK)),$(LOCAL_ENV),$(THEIR_ENV)) && $(PYTHON) -m tools.report preview \
	  --stack $(STACK) --policy-pack policies $(if $(BASE),--base $(BASE)) $(ARGS)

rotate: $(ENGINE) ## make one generated secret anew: make rotate STACK=local SECRET=hub-cookie
	@mkdir -p .mlhub/stacks && cp stacks/Pulumi.$(STACK).yaml .mlhub/stacks/
	@$(if $(filter local,$(STACK)),$(LOCAL_ENV),$(THEIR_ENV)) && $(PYTHON) -m tools.rotate "$(SECRET)" \
	  --stack $(STACK) --config-file .mlhub/stacks/Pulumi.$(STACK).yaml $(ARGS)

RECOVERY = mkdir -p .mlhub/stacks && cp stacks/Pulumi.$(STACK).yaml .mlhub/stacks/ \
  && $(if $(filter local,$(STACK)),$(LOCAL_ENV),$(THEIR_ENV)) && $(PYTHON) -m tools.recovery
OF_STACK = --stack $(STACK) --config-file .mlhub/stacks/Pulumi.$(STACK).yaml
ARCHIVE = --from "$(FROM)" --identity "$(IDENTITY)"

backup-key: .venv/run.stamp ## make a key for archives: make backup-key TO=/safe/mlhub.key
	@$(PYTHON) -m tools.recovery key --to "$(TO)"

backup: $(ENGINE) ## one encrypted archive: make backup STACK=local TO=folder RECIPIENT=age1… KEEP=14
	@$(RECOVERY) backup $(OF_STACK) --to "$(or $(TO),backups)" $(if $(KEEP),--keep $(KEEP)) \
	  $(if $(RECIPIENT),--recipient $(RECIPIENT))

backup-verify: .venv/run.stamp ## read a whole archive: make backup-verify FROM=archive IDENTITY=key
	@$(PYTHON) -m tools.recovery verify $(ARCHIVE)

restore: $(ENGINE) ## the stack as an archive has it: make restore STACK=local FROM=archive IDENTITY=key
	@$(RECOVERY) prepare $(OF_STACK) $(ARCHIVE)
	@$(if $(filter local,$(STACK)),$(PYTHON) -m bootstrap up --no-stack)
	@$(RECOVERY) restore $(OF_STACK) $(ARCHIVE) $(if $(REPLACE),--replace $(REPLACE)) $(if $(ONLY),--only $(ONLY))

resume: $(ENGINE) ## give a restore up that did not end: what it stopped runs again
	@$(RECOVERY) resume $(OF_STACK)

rollback: $(ENGINE) ## the revision applied before: make rollback STACK=local [TO=commit] [DATA=drop]
	@$(RECOVERY) rollback $(OF_STACK) $(if $(TO),--to $(TO)) $(if $(DATA),--data $(DATA)) \
	  $(if $(CONFIRM),--confirm $(CONFIRM))

rebind: $(ENGINE) ## give volumes whose claim was deleted back to claims of that name
	@$(RECOVERY) rebind $(OF_STACK)

rename-home: $(ENGINE) ## somebody's home to their new user name: make rename-home FROM=alice TO=alicia
	@export PYTHONPATH=images/packages/mlhub/src && $(RECOVERY) rename-home $(OF_STACK) --from "$(FROM)" --to "$(TO)"

destroy: $(ENGINE) ## remove all but data and secrets, which `up` finds again: make destroy CONFIRM=local
	@$(RECOVERY) destroy $(OF_STACK) $(if $(CONFIRM),--confirm $(CONFIRM))

verify: .venv/run.stamp ## whether an applied stack works for a person: make verify STACK=staging
	@$(if $(filter local,$(STACK)),$(LOCAL_ENV),$(THEIR_ENV)) && PYTHONPATH=images/packages/mlhub/src \
	  $(PYTHON) -m tools.verify --stack $(STACK) $(ARGS)

new-stack: .venv/run.stamp ## write a stack file to begin with: make new-stack NAME=team-a
	@$(PYTHON) -m tools.new_stack "$(NAME)"

test: .venv/dev.stamp ## the tests that need no cluster
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" --junitxml=$(RESULTS)/test.xml

# Unpacked and not installed: the package would start a Prometheus of its own.
PROMETHEUS := $(CURDIR)/.mlhub/prometheus
$(PROMETHEUS)/usr/bin/prometheus:
	@mkdir -p $(PROMETHEUS) && cd $(PROMETHEUS) \
	  && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg-deb -x prometheus_*.deb .

e2e: .venv/dev.stamp policies/.venv/run.stamp $(PROMETHEUS)/usr/bin/prometheus ## the tests on the running local stack: real browser, real servers; LONG=yes for all
	@command -v chromium >/dev/null && command -v jq >/dev/null || apt-get install -y -qq --no-install-recommends chromium jq
	@eval "$$($(PYTHON) -m bootstrap env)" && export PATH="$$PATH:$(PROMETHEUS)/usr/bin" \
	  && LONG=$(LONG) tools/e2e.sh $(RESULTS)

drill: .venv/dev.stamp ## a test: what alice of the local stack has is lost, restored in place, and found by a browser
	@eval "$$($(PYTHON) -m bootstrap env)" \
	  && $(PYTHON) -m pytest --timeout=600 tests/e2e/test_recovery.py -k after_a_restore

rows: .venv/run.stamp ## which promised behaviours held in the last `make test` and `make e2e`
	@$(PYTHON) -m tools.rows $(RESULTS)/{test,engine,e2e,alone}.xml

check: .venv/dev.stamp ## lint, format, types, schema, pages
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	@$(PYTHON) -m pytest -q tests/unit/test_docs.py

secrets: .venv/dev.stamp ## no tracked file holds what looks like a secret and is not in .secrets.baseline
	@mkdir -p .mlhub && cp .secrets.baseline .mlhub/secrets.baseline
	@git ls-files -z | xargs -0 sh -c 'said=$$(.venv/bin/detect-secrets-hook "$$@") || [ $$? -eq 3 ] \
	  || { echo "$$said"; exit 1; }' sh --baseline .mlhub/secrets.baseline # 3: known ones have moved to other lines

lock: .venv/dev.stamp ## pin every requirements.in anew, with hashes
	@$(PYTHON) tools/lock.py

.venv/run.stamp: requirements.txt tools/venv.sh
	@tools/venv.sh requirements.txt && touch $@

.venv/dev.stamp: requirements-dev.txt requirements.txt tools/venv.sh
	@tools/venv.sh requirements-dev.txt && touch $@ .venv/run.stamp

policies/.venv/run.stamp: policies/requirements.txt tools/venv.sh | .venv/run.stamp
	@tools/venv.sh policies/requirements.txt policies/.venv && touch $@

.PHONY: help up down status doctor password preview rotate verify backup-key backup backup-verify \
  restore resume rollback rebind rename-home destroy new-stack test e2e drill rows check \
  secrets lock
