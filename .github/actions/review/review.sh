#!/usr/bin/env bash
# Reviews the playbooks of a change, in the checkout that it is called in: lint, diff, render --check. Writes comment.md,
# lint.sarif and diff.sarif to $REVIEW_OUT, and exits with 1 where something that $REVIEW_FAIL_ON names is so.
set -uo pipefail

out=${REVIEW_OUT:?} base=${REVIEW_BASE:?}
read -r -a paths <<<"${REVIEW_PATHS:-playbooks}"
mkdir -p "$out"

playbooks=()
while IFS= read -r -d '' file; do # files that have steps: an include is reviewed with those that include it
    if grep -q '^runbook:' "$file" && grep -q '^steps:' "$file"; then playbooks+=("$file"); fi
done < <(git ls-files -z -- "${paths[@]}" | grep -z '\.yaml$')

failed=()
fails_on() { [[ " ${REVIEW_FAIL_ON:-lint stale} " == *" $1 "* ]]; }

lint_text='no playbooks' stale_text=''
if ((${#playbooks[@]})); then
    lint_text=$(runbook lint "${playbooks[@]}" --sarif "$out/lint.sarif" 2>&1)
    if (($? != 0)) && fails_on lint; then failed+=(lint); fi

    rendered=()
    for file in "${playbooks[@]}"; do
        if git ls-files --error-unmatch "${file%.yaml}.md" >/dev/null 2>&1; then rendered+=("$file"); fi
    done
    if ((${#rendered[@]})); then # only those that are committed as Markdown too
        if ! stale_text=$(runbook render --check "${rendered[@]}" 2>&1) && fails_on stale; then failed+=(stale); fi
    fi
fi

runbook diff "$base...HEAD" "${paths[@]}" --markdown "$out/diff.md" --sarif "$out/diff.sarif" --json >"$out/diff.json" 2>"$out/diff.err"
code=$?
verdict=$(sed -n 's/^ "verdict": "\(.*\)",$/\1/p' "$out/diff.json" 2>/dev/null)
if ((code == 15)) && fails_on weakens; then failed+=(weakens); fi
if ((code != 0 && code != 15)); then failed+=(diff); fi

{
    if [[ -s $out/diff.md ]]; then cat "$out/diff.md"; else printf '<!-- runbook diff -->\n## Playbooks: not compared\n'; fi
    if [[ -s $out/diff.err ]]; then printf '\n```text\n%s\n```\n' "$(cat "$out/diff.err")"; fi
    printf '\n<details><summary>lint</summary>\n\n```text\n%s\n```\n\n</details>\n' "$lint_text"
    if [[ $stale_text == *stale* ]]; then printf '\n```text\n%s\n```\n' "$stale_text"; fi
} >"$out/comment.md"

if [[ -n ${GITHUB_OUTPUT:-} ]]; then printf 'verdict=%s\n' "$verdict" >>"$GITHUB_OUTPUT"; fi
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then cat "$out/comment.md" >>"$GITHUB_STEP_SUMMARY"; fi
cat "$out/comment.md"
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
