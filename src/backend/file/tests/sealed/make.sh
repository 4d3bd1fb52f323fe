#!/usr/bin/env bash
# Makes the fixtures of this folder anew with the real tools, which must be in PATH: see README.md. All values are test values.
set -euo pipefail
cd "$(dirname "$0")"
rm -f ./*.agekey ./sealed.* ./plain.* ./.env

age-keygen -o ours.agekey 2>/dev/null
age-keygen -o theirs.agekey 2>/dev/null
ours=$(age-keygen -y ours.agekey)
theirs=$(age-keygen -y theirs.agekey)
export SOPS_AGE_KEY_FILE=$PWD/ours.agekey
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

seal() { # NAME FILE FLAGS...: encrypts FILE into sealed.NAME
  local name=$1 file=$2
  shift 2
  (cd "$work" && sops encrypt "$@" "$file") >"sealed.$name"
}

cat >"$work/values.yaml" <<'PLAIN'
# A comment goes along.
database:
    user: app
    password: "p:w \"quoted\" \\ ünï 🔑"
    ports: [5432, -1, 0]
    # Another one.
    replicas:
        - host: a
          weight: 1.10
        - host: b
          weight: 2.5e-7
switch: true
off: false
nothing: null
empty: ""
text: |
    line one
    line two
long: 9007199254740993
day: 2026-01-31
looks: "1.10"
truth: "true"
open_unencrypted:
    number: 1.10
    hex: 0x1F
    whole: 12345678901234567
    day: 2026-01-31
    truth: yes
    real: true
    none: ~
    list: [1, two, 3.0]
PLAIN
seal values.yaml values.yaml --age "$ours"
sops decrypt --output-type json sealed.values.yaml >plain.values.json

cat >"$work/small.yaml" <<'PLAIN'
alpha: first
beta:
    - second
    - third
gamma: 7
PLAIN
seal small.yaml small.yaml --age "$ours"
sops decrypt --output-type json sealed.small.yaml >plain.small.json
printf 'ALPHA=first\nBETA="second"\n' >"$work/small.env"
printf '[alpha]\nbeta = first\n[gamma]\ndelta = second\n' >"$work/small.ini"
seal small.env small.env --age "$ours"
seal small.ini small.ini --age "$ours"
seal two.yaml small.yaml --age "$theirs,$ours"
seal theirs.yaml small.yaml --age "$theirs"
cat >"$work/.sops.yaml" <<PLAIN
creation_rules:
  - shamir_threshold: 2
    key_groups: [{age: [$ours]}, {age: [$theirs]}]
PLAIN
seal groups.yaml small.yaml
rm "$work/.sops.yaml"

cat >"$work/values.json" <<'PLAIN'
{"z": "last first", "a": {"n": 1, "f": 1.5, "big": 9007199254740993, "t": true, "nil": null, "e": "", "l": ["x", {"y": "\u0001\"\\é🔑"}]},
 "b_unencrypted": {"n": 10, "f": 1.0, "exp": 1e3, "wide": 123456789012345678901234567890, "t": false, "s": "plain"}}
PLAIN
seal values.json values.json --age "$ours"
sops decrypt sealed.values.json >plain.json

cat >"$work/secret.yaml" <<'PLAIN'
apiVersion: v1
kind: Secret
metadata:
    name: app
    labels: {tier: gold}
stringData:
    user: app
    password: pass word
PLAIN
seal encrypted-regex.yaml secret.yaml --age "$ours" --encrypted-regex '^(data|stringData)$'
cat >"$work/.sops.yaml" <<PLAIN
creation_rules:
  - {age: $ours, encrypted_regex: '^(data|stringData)$', mac_only_encrypted: true}
PLAIN
seal mac-only.yaml secret.yaml
rm "$work/.sops.yaml"
seal unencrypted-regex.yaml secret.yaml --age "$ours" --unencrypted-regex '^(apiVersion|kind|metadata)$'
sops decrypt --output-type json sealed.encrypted-regex.yaml >plain.secret.json
cat >"$work/suffix.yaml" <<'PLAIN'
user: app
password_secret: pass word
inner: {token_secret: t, plain: 1}
PLAIN
seal encrypted-suffix.yaml suffix.yaml --age "$ours" --encrypted-suffix _secret
sops decrypt --output-type json sealed.encrypted-suffix.yaml >plain.suffix.json

cat >"$work/app.env" <<'PLAIN'
# A comment goes along.
USER=app
PASSWORD="pass word"
EMPTY=
LINES=one\ntwo
EQUALS=a=b=c
OPEN_unencrypted=seen
PLAIN
seal app.env app.env --age "$ours"
sops decrypt sealed.app.env >plain.env

cat >"$work/app.ini" <<'PLAIN'
[database]
user = app
password = pass=word ; no comment
[other]
; A comment goes along.
empty =
open_unencrypted = seen
PLAIN
seal app.ini app.ini --age "$ours"
sops decrypt --output-type json sealed.app.ini >plain.ini.json

python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)))' >"$work/all.bytes"
seal all.bytes all.bytes --age "$ours"

printf 'an age file\nof two lines\n' >"$work/note"
age -r "$ours" -o sealed.note.age "$work/note"
age -a -r "$theirs" -r "$ours" -o sealed.note.asc "$work/note"
age -r "$theirs" -o sealed.theirs.age "$work/note"
