#!/usr/bin/env bash
# Builds the engines of several checkpoints in several precisions; what is up to date is left as it is.
#
#   scripts/build_engines.sh [models/500m-256 models/500m-512 ...]      default: every checkpoint under models/
#
# Environment: PRECISIONS ("fp16 bf16"), BATCH (1 or 1-8), ATTENTION, LINEAR, FLAVOR, CAT2DOG (the command).
# Goes on after a failure; exits with the code of the first one.
set -u
cat2dog=${CAT2DOG:-.venv/bin/cat2dog}
if [ $# -eq 0 ]; then
  for config in models/*/config.json; do [ -f "$config" ] && set -- "$@" "${config%/config.json}"; done
fi
[ $# -gt 0 ] || { echo "error: no checkpoint under models/: cat2dog init --model models/tiny-128 makes one" >&2; exit 2; }
failed=0
for model in "$@"; do
  for precision in ${PRECISIONS:-fp16}; do
    "$cat2dog" build --model "$model" --precision "$precision" --batch "${BATCH:-1}" \
      --attention "${ATTENTION:-auto}" --linear "${LINEAR:-auto}" --flavor "${FLAVOR:-auto}"
    code=$?
    [ "$code" -eq 130 ] && exit 130
    [ "$code" -eq 0 ] || { [ "$failed" -ne 0 ] || failed=$code; echo "failed: $model $precision (exit $code)" >&2; }
  done
done
exit "$failed"
