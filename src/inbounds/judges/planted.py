"""Paths that something would execute later, outside any jail: by what would execute them (ATTACKS, "planted now").

Classes by name only: what a file contains is for the security review. A name is compared folded (case, Unicode
compatibility forms, invisible characters), because macOS and Windows check-outs fold names too (CVE-2014-9390).
"""

import re
import unicodedata
from dataclasses import dataclass

# (what executes it, expression over the folded path). Order matters: the first that matches names the class.
_CLASSES: tuple[tuple[str, str], ...] = (
    ("git, as repository data", r"(.*/)?(\.git|git~[0-9]+)(/.*)?"),
    ("git, through attributes or submodules", r"(.*/)?\.(gitattributes|gitmodules|gitconfig|lfsconfig|mailmap)"),
    (
        "git, as a hook",
        (
            r"(.*/)?(\.githooks|\.husky|git-?hooks)/.*|(.*/)?hooks/(pre|post|commit|prepare|applypatch|update|fsmonitor"
            r"|sendemail|reference|push|proc)[a-z0-9-]*(\.[a-z]+)?|(.*/)?head|(.*/)?(\.?lefthook(-local)?\.(ya?ml|toml|json)"
            r"|\.pre-commit-(config|hooks)\.ya?ml|\.overcommit\.yml|\.huskyrc.*|\.lintstagedrc.*)"
        ),
    ),
    (
        "a continuous integration service",
        (
            r"\.(github/(workflows|actions)|circleci|buildkite|woodpecker|forgejo|gitea|ci|semaphore|teamcity|azure"
            r"-pipelines)/.*|(.*/)?(\.gitlab-ci\.yml|\.travis\.yml|\.drone\.yml|\.cirrus\.(yml|star)|appveyor\.yml"
            r"|jenkinsfile.*|azure-pipelines.*\.ya?ml|bitbucket-pipelines\.yml|codeship-.*\.yml|cloudbuild\.ya?ml|action\.ya?ml"
            r"|\.github/dependabot\.ya?ml|renovate\.json5?)"
        ),
    ),
    (
        "another coding agent, as its settings or instructions",
        (
            r"(.*/)?\.(claude|codex|cursor|continue|aider.*|gemini|opencode|pi|copilot|windsurf|cline.*|roo.*|qwen|kiro"
            r"|agents?)(/.*)?|(.*/)?(\.mcp\.json|mcp\.json|claude(\.local)?\.md|agents\.md|gemini\.md|\.(cursor|windsurf|cline)"
            r"rules|\.github/copilot.*|opencode\.jsonc?)"
        ),
    ),
    (
        "an editor or development container",
        (
            r"(.*/)?\.(vscode|idea|devcontainer|fleet|zed|nova|vs|theia|gitpod)(/.*)?|(.*/)?(.*\.code-workspace"
            r"|\.devcontainer\.json|\.gitpod\.yml|\.?(exrc|vimrc|gvimrc|nvimrc|nvim\.lua|lvimrc|dir-locals(-2)?\.el"
            r"|emacs|projectile)|.*\.sublime-(project|build|settings)|\.editorconfig-exec)"
        ),
    ),
    (
        "a shell at its start or on entering the directory",
        (
            r"(.*/)?(\.(envrc|env|env\..*|bashrc|bash_profile|bash_login|bash_logout|bash_aliases|profile|zshrc|zshenv"
            r"|zprofile|zlogin|kshrc|inputrc|mise(\.local)?\.toml|tool-versions|autoenv.*|direnvrc|nvmrc)|mise\.toml"
            r"|config\.fish|devbox\.json|flake\.nix|shell\.nix|default\.nix)"
        ),
    ),
    (
        "the Python interpreter at its start",
        r"(.*/)?((site|user)customize(\.py|/.*)|.*\.(pth|egg-link)|pyvenv\.cfg|__editable__.*|direct_url\.json)",
    ),
    (
        "whoever uses this virtual environment or tool directory",
        (
            r"(.*/)?(\.?v?env|\.venv.*|venv.*|virtualenv|node_modules|\.tox|\.nox|site-packages|dist-packages|\.eggs"
            r"|__pypackages__)/.*|(.*/)?bin/(python|pip|node|npm|npx|activate)[^/]*"
        ),
    ),
    (
        "the loader of compiled or cached code",
        r"(.*/)?(__pycache__/.*|.*\.(pyc|pyo|so|dylib|dll|pyd|node|class|jar|war))",
    ),
    (
        "pytest, before any test runs",
        r"(.*/)?(conftest\.py|\.?pytest\.(ini|toml)|tox\.ini|setup\.cfg|\.coveragerc|noxfile\.py|\.?coverage\.(rc|toml))",
    ),
    (
        "a Python build back end or package manager",
        (
            r"(.*/)?(pyproject\.toml|setup\.py|hatch_build\.py|pdm_build\.py|manifest\.in|pip\.conf"
            r"|pip\.ini|\.pypirc|uv\.toml|uv\.lock|poetry\.(lock|toml)|pdm\.lock|pipfile(\.lock)?|pixi\.(toml|lock)"
            r"|conda(-lock)?\.ya?ml|environment\.ya?ml|(.*-)?requirements.*\.(txt|in)|requirements/.*\.(txt|in)|constraints.*\.txt)"
        ),
    ),
    (
        "a JavaScript package manager or its tools",
        (
            r"(.*/)?(package\.json|package-lock\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?|deno\.jsonc?"
            r"|\.npmrc|\.yarnrc(\.ya?ml)?|\.yarn/.*|\.pnpmfile\.c?js|pnpm-workspace\.yaml|bunfig\.toml|binding\.gyp"
            r"|(webpack|rollup|vite|vitest|jest|babel|eslint|prettier|postcss|tailwind|next|nuxt|svelte|astro|cypress"
            r"|playwright|rspack|tsup|esbuild|metro|commitlint|stylelint|ava|nyc)\.config(\..*)?\.[cm]?[jt]s"
            r"|(gulpfile|gruntfile|karma\.conf)(\..*)?\.[cm]?[jt]s"
            r"|\.(eslintrc|babelrc|mocharc|prettierrc|swcrc|commitlintrc|stylelintrc)(\..*)?)"
        ),
    ),
    (
        "a build tool or task runner",
        (
            r"(.*/)?((gnu)?makefile(\..*)?|.*\.mk|cmakelists\.txt|cmakepresets\.json|.*\.cmake|configure(\.ac)?|justfile|\.justfile"
            r"|taskfile\.ya?ml|rakefile|gemfile(\.lock)?|.*\.gemspec|build\.rs|\.cargo/.*|cargo\.(toml|lock)|rust-toolchain.*"
            r"|go\.(mod|sum|work)|build\.gradle.*|settings\.gradle.*|gradlew.*|gradle/.*|pom\.xml|mvnw.*|\.mvn/.*|build\.sbt"
            r"|project/.*\.(sbt|scala)|build\.xml|meson\.build|sconstruct|wscript|build(\.bazel)?|workspace(\.bazel)?"
            r"|\.bazelrc|.*\.bzl|fabfile\.py|dodo\.py|composer\.(json|lock)|mix\.exs|.*\.(csproj|props|targets|sln)"
            r"|directory\.build\..*|package\.swift|podfile|fastlane/.*)|(build|tasks)\.py"
        ),
    ),
    (
        "a container engine, orchestrator or service manager",
        (
            r"(.*/)?((docker|container)file(\..*)?|.*\.dockerfile|(docker-)?compose.*\.ya?ml|\.dockerignore|procfile.*"
            r"|vagrantfile|skaffold\.yaml|chart\.yaml|tiltfile|.*\.(tf|tfvars|service|socket|timer|desktop)|serverless\.ya?ml"
            r"|fly\.toml|vercel\.json|netlify\.toml|wrangler\.(toml|jsonc?)|crontab|cron\.d/.*)"
        ),
    ),
    (
        "a notebook or debugger on opening",
        r"(.*/)?(\.ipython/.*|ipython_config\.py|jupyter_.*config\.py|\.gdbinit|\.lldbinit|\.pdbrc)",
    ),
)
_COMPILED = tuple((who, re.compile(expression, re.DOTALL)) for who, expression in _CLASSES)
# Characters that HFS+ and people's eyes ignore (CVE-2014-9390); dropping them shows ".g\u200cit" for what it is.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
PATH_CHARS_MAX = 8192  # twice PATH_MAX: beyond it nothing is a path


@dataclass(frozen=True, slots=True)
class Planted:
    """Who would execute the file later; `git_data` marks what no declaration can allow."""

    executor: str
    git_data: bool


def folded(path: str) -> str:
    """The path as the most forgiving file system would compare it; trailing dots and spaces fall off a segment."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", path)).casefold()
    return "/".join(part.rstrip(". ") or part for part in plain.replace("\\", "/").split("/"))


def planted(path: str) -> Planted | None:
    """Class of a written path, or None if nothing known would execute it by its name alone."""
    if len(path) > PATH_CHARS_MAX:
        return Planted(f"no known program (a path of {len(path)} characters is not classed)", git_data=False)
    name = folded(path)
    for index, (who, expression) in enumerate(_COMPILED):
        if expression.fullmatch(name):
            return Planted(who, git_data=index == 0)
    return None
