"""Security-critical paths: a list of our own, and policy's (H19); files that became executable.

By path alone, compared folded, so that a name made to look like another is that other. A deletion counts: removing an
owner or a check is a change, too. Documentation and tests are left out of the list of code, not of operations.
"""

import re
from collections.abc import Iterator

from inbounds.judges import globs
from inbounds.judges.anomalies.material import Changed, Material, Signal, extension, words
from inbounds.judges.planted import folded

# (what it concerns, expression over the folded path), the first that fits
_OPERATIONS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (what, re.compile(expression))
    for what, expression in (
        ("continuous integration",
         (r"\.(github/(workflows|actions)|circleci|buildkite|woodpecker|forgejo|gitea|semaphore|teamcity)/.*"
         r"|(.*/)?(\.gitlab-ci[^/]*\.ya?ml|\.travis\.yml|\.drone\.ya?ml|\.cirrus\.yml|appveyor\.yml|jenkinsfile[^/]*"
         r"|azure-pipelines[^/]*\.ya?ml|bitbucket-pipelines\.yml|cloudbuild\.ya?ml|action\.ya?ml"
         r"|\.pre-commit-config\.ya?ml)")),
        ("who owns and reviews the code", (r"(.*/)?(codeowners|owners"
         r"|\.github/(settings|dependabot)\.ya?ml|renovate\.json5?)")),
        ("containers", r"(.*/)?((docker|container)file([.-][^/]*)?|[^/]*\.dockerfile|(docker-)?compose[^/]*\.ya?ml)"),
        ("infrastructure",
         (r"(.*/)?([^/]*\.(tf|tfvars|tfstate|hcl|bicep)|(terraform|ansible|helm|charts|k8s|kubernetes|kustomize|pulumi"
         r"|cloudformation)/.*|kustomization\.ya?ml|chart\.yaml|serverless\.ya?ml|skaffold\.yaml|vagrantfile)")),
        ("deployment",
         (r"(.*/)?((deploy|deployment|deployments|provisioning)/.*|procfile|fly\.toml|vercel\.json|netlify\.toml"
         r"|wrangler\.(toml|jsonc?)|deploy(ment)?\.(sh|py|ya?ml|rb)|[^/]*\.(service|socket|timer)|crontab|cron\.d/.*"
         r"|(nginx|httpd|apache2?|haproxy|caddyfile)[^/]*(\.conf|\.cfg)?)")),
        ("rights on a machine",
         (r"(.*/)?(sudoers(\.d/.*)?|polkit[^/]*/.*|pam\.d/.*|[^/]*\.(apparmor|seccomp|te)|sshd?_config|authorized_keys"
         r"|known_hosts|\.htaccess|[^/]*\.policy)")),
        ("secrets and keys",
         (r"(.*/)?(\.env(\.[^/]*)?|\.envrc|id_(rsa|dsa|ecdsa|ed25519)[^/]*|[^/]*\.(pem|key|p12|pfx|jks|keystore|kdbx|asc|gpg)"
         r"|\.netrc|\.npmrc|\.pypirc|\.dockercfg|pip\.conf|secrets?\.(ya?ml|json|toml|env))")),
        ("git's own settings", r"(.*/)?\.(gitattributes|gitmodules|gitconfig|githooks/.*|husky/.*)"),
    )
)  # fmt: skip
_WORDS = words(
    "auth authn authz authentication authorization login logon oauth oauth2 oidc saml jwt sso ldap mfa totp crypto"
    " cryptography cipher ciphers encryption decryption hmac signing signature signatures password passwords passwd"
    " credential credentials permission permissions acl rbac csrf cors tls ssl certs certificates security sandbox"
    " session sessions migration migrations seccomp sudo privilege privileges"
)
_SPLIT = re.compile(r"[^a-z0-9]+")
_PROSE = frozenset({"md", "rst", "txt", "adoc", "html", "svg", "png", "po"})
_TESTS = frozenset({"test", "tests", "testing", "spec", "specs", "docs", "doc", "examples", "fixtures"})


def signals(material: Material, policy: tuple[globs.Pattern, ...]) -> Iterator[Signal]:
    """Every rule of H19 over every changed path, a renamed file under both of its names."""
    for change in material.changes:
        for path in dict.fromkeys(p for p in (change.path, change.old_path) if p):
            yield from _path(path, material, policy)
        yield from _mode(change)


def operations(path: str) -> str:
    """What outside the program a path concerns, "" for nothing."""
    name = folded(path)
    return next((what for what, expression in _OPERATIONS if expression.fullmatch(name)), "")


def code(path: str) -> str:
    """The word by which a path is code that security hangs on, "" for none."""
    if extension(path) in _PROSE:
        return ""
    words = _SPLIT.split(folded(path))
    if _TESTS.intersection(words):
        return ""
    return next((word for word in words if word in _WORDS), "")


def _path(path: str, material: Material, policy: tuple[globs.Pattern, ...]) -> Iterator[Signal]:
    if globs.covered(path, policy):
        yield Signal("sensitive_policy", path, "policy calls this path security-critical")
    declared = path in material.declared.paths
    if what := operations(path):
        yield Signal("sensitive_operations", path, f"concerns {what}", declared=declared)
    elif word := code(path):
        yield Signal("sensitive_code", path, f"security-critical by its name ({word})", declared=declared)


def _mode(change: Changed) -> Iterator[Signal]:
    if change.new_mode == "100755" and change.old_mode != "100755":
        was = "was not executable before" if change.old_mode else "a new executable file"
        yield Signal("executable_bit", change.path, was)
