#!/usr/bin/env bash
# Reviews the playbooks of a change, in the checkout that it is called in: lint, diff, render --check. Writes comment.md,
# lint.sarif and diff.sarif to $REVIEW_OUT, and exits with 1 where something that $REVIEW_FAIL_ON names is so.
set -uo pipefail

export LC_ALL=C.UTF-8 # lengths below are of characters

out=${REVIEW_OUT:?} base=${REVIEW_BASE:?}
read -r -a paths <<<"${REVIEW_PATHS:-playbooks}"
mkdir -p "$out"

playbooks=()
while IFS= read -r -d '' file; do # files that have steps: an include is reviewed with those that include it
    if grep -Eq "(^|[{,] *)[\"']?runbook[\"']? *:" "$file" && grep -Eq "(^|[{,] *)[\"']?steps[\"']? *:" "$file"; then
        playbooks+=("$file")
    fi
done < <(git ls-files -z -- "${paths[@]}" | grep -zE '\.ya?ml$')

# A comment has 65,536 characters. The diff keeps to 50,000 of them by itself; the rest is for these.
fenced() { # a text, the most characters: as a code block that nothing inside it can end
    local text=$1 fence='```'
    if ((${#text} > $2)); then text="${text:0:$2}"$'\n'"… cut here; the job's log has all of it"; fi
    while [[ $text == *"$fence"* ]]; do fence+='`'; done
    printf '%stext\n%s\n%s\n' "$fence" "$text" "$fence"
}

failed=()
fails_on() { [[ " ${REVIEW_FAIL_ON:-lint stale} " == *" $1 "* ]]; }

lint_text='no playbooks' stale_text=''
if ((${#playbooks[@]})); then
    lint_text=$(runbook lint "${playbooks[@]}" --sarif "$out/lint.sarif" 2>&1)
    if (($? != 0)) && fails_on lint; then failed+=(lint); fi

    rendered=()
    for file in "${playbooks[@]}"; do
        if git ls-files --error-unmatch "${file%.*}.md" >/dev/null 2>&1; then rendered+=("$file"); fi
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
    if [[ -s $out/diff.err ]]; then printf '\n' && fenced "$(cat "$out/diff.err")" 2500; fi
    if [[ $stale_text == *stale* ]]; then printf '\n' && fenced "$stale_text" 2500; fi
    printf '\n<details><summary>lint</summary>\n\n%s\n\n</details>\n' "$(fenced "$lint_text" 9000)"
} >"$out/comment.md"

if [[ -n ${GITHUB_OUTPUT:-} ]]; then printf 'verdict=%s\n' "$verdict" >>"$GITHUB_OUTPUT"; fi
if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then cat "$out/comment.md" >>"$GITHUB_STEP_SUMMARY"; fi
said() { printf '%s\n' "$lint_text" && cat "$out/comment.md"; }
if [[ -n ${GITHUB_ACTIONS:-} ]]; then # nothing that a playbook says is a command to the job
    token=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
    printf '::stop-commands::%s\n' "$token" && said && printf '::%s::\n' "$token"
else
    said
fi
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
