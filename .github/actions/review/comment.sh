#!/usr/bin/env bash
# Keeps one comment on a pull request up to date: it is found again by the marker in its first line.
set -euo pipefail

file=${REVIEW_OUT:?}/comment.md number=${PULL_REQUEST:?}
marker=$(head -n 1 "$file")
comments="repos/${GITHUB_REPOSITORY:?}/issues/$number/comments"
known=$(gh api --paginate "$comments" --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1)
if [[ -n $known ]]; then
    gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$known" --field body=@"$file" >/dev/null
else
    gh api --method POST "$comments" --field body=@"$file" >/dev/null
fi
