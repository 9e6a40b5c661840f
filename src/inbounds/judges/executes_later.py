"""What would execute or obey a written file later, outside any jail: the one table (issue "Safe hand-back"; ATTACKS).

A pattern is lower-case and matches a name at any depth, `/` in front anchors it at the root, `/` behind takes all that
is below, `*` stays within one segment, `{a,b}` are alternatives. Order counts: the first row that matches names the
reason. docs/executes-later.md is made from it. Knows neither how names are folded nor what a finding is.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Who does what with such a file, and when: "<who> <does> <when>" is a sentence that a reviewer reads."""

    who: str
    does: str
    when: str
    names: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The sentence."""
        return f"{self.who} {self.does} {self.when}"


# No declaration allows it: what git keeps about a repository is no content of it (CVE-2014-9390, CVE-2019-1387).
GIT_DATA = Row("git", "takes it for its own data, hooks and configuration", "at every command", (".git/", "git~*/"))

TABLE: tuple[Row, ...] = (
    GIT_DATA,
    Row("git", "runs it as a hook", "at every commit, checkout, merge or push", (
        "{.githooks,githooks,git-hooks,.husky}/",
        "hooks/{pre,post}-*", "hooks/{commit-msg,prepare-commit-msg,applypatch-msg,update,fsmonitor-watchman}{.*,}",
        "hooks/{sendemail-validate,reference-transaction,push-to-checkout,proc-receive}{.*,}",
    )),
    Row("a hook framework", "runs the commands in it", "at every commit or push", (
        "{.,}lefthook{-local,}.{yml,yaml,toml,json}", ".pre-commit-{config,hooks}.{yml,yaml}", ".overcommit.yml",
        "{.huskyrc,.lintstagedrc}*", "lint-staged.config.*",
    )),
    Row("git", "applies its filters and drivers, or fetches what it points to,", "at every checkout", (
        ".{gitattributes,gitmodules,gitconfig,lfsconfig,mailmap}", "{head,commondir,gitdir,config.worktree}",
    )),
    Row("another version control system", "takes it for its own data and hooks", "at every command", (
        "{.hg,.svn,.jj,.bzr}/", ".hgrc", ".hgsub",
    )),
    Row("the continuous integration service", "runs the jobs in it with its own secrets", "at the next push", (
        ".github/{workflows,actions}/", ".github/dependabot.{yml,yaml}", "action.{yml,yaml}",
        ".{circleci,buildkite,woodpecker,forgejo,gitea,ci,semaphore,teamcity,azure-pipelines,gitlab}/",
        "{.gitlab-ci,.travis,.drone,appveyor,.appveyor,.woodpecker,bitbucket-pipelines,codeship-*}.{yml,yaml}",
        ".cirrus.{yml,star}", "{jenkinsfile,earthfile}*", "{.,}azure-pipelines*.{yml,yaml}",
        "cloudbuild.{yml,yaml,json}",
        "buildspec*.{yml,yaml}", "{.,}renovate.json{5,}", ".renovaterc*",
    )),
    Row("the code host", "lets it decide whose review a change needs", "at the next pull request", ("codeowners",)),
    Row("another coding agent", "obeys it as settings or instructions", "as soon as it is started here", (
        ".{claude,codex,cursor,continue,gemini,opencode,pi,copilot,windsurf,qwen,kiro,agent,agents,amazonq,junie}/",
        ".{aider,cline,roo}*/", ".aider*", "{.,}mcp.json",
        "{claude,claude.local,agents,agents.override,gemini,qwen}.md",
        ".{cursor,windsurf,cline,roo}rules*", ".goosehints", "opencode.json{c,}", ".github/copilot*",
        ".github/{instructions,prompts,agents,chatmodes,hooks,skills}/", "skill.md",
    )),
    Row("an editor or development container", "runs its tasks and settings", "as soon as the directory is opened", (
        ".{vscode,idea,devcontainer,fleet,zed,nova,vs,theia,gitpod}/", "*.code-workspace", ".devcontainer.json",
        ".gitpod.{yml,dockerfile}", "{.,}{exrc,vimrc,gvimrc,nvimrc,nvim.lua,lvimrc}", ".dir-locals{-2,}.el",
        ".emacs*",
        ".projectile", "*.sublime-{project,build,settings}", ".editorconfig-exec", ".{emacs,vim,nvim}.d/", ".vim/",
    )),
    Row("direnv or a version switcher", "evaluates it", "when somebody enters the directory", (
        ".envrc", ".direnvrc", "{.,}mise{.local,.*,}.toml", ".mise/", ".tool-versions", ".autoenv*", ".nvmrc",
        ".{node,python,ruby,java}-version", ".sdkmanrc", "devbox.json", "{flake,shell,default}.nix", "flake.lock",
    )),
    Row("the program or whoever sources it", "takes its variables", "at the next start (LD_PRELOAD and PATH, too)", (
        ".env", ".env.*", ".flaskenv", ".pam_environment",
    )),
    Row("a shell or terminal", "runs it", "at its start, where this is a home directory or is linked from one", (
        ".bash{rc,_profile,_login,_logout,_aliases}", ".profile", ".z{shrc,shenv,profile,login,logout}", ".kshrc",
        ".{inputrc,screenrc,tmux.conf,xinitrc,xprofile,xsession,xsessionrc,tcshrc,cshrc,login,logout}",
        "config.fish", ".{config,local,ssh,gnupg,kube,aws,docker}/", ".{netrc,curlrc,wgetrc,terraformrc}",
    )),
    Row("an interpreter's prompt, debugger or client", "runs it", "when it is started in this directory", (
        ".{gdbinit,lldbinit,pdbrc,irbrc,pryrc,rprofile,renviron,ghci,ocamlinit,psqlrc,sqliterc,my.cnf}", ".iex.exs",
        ".gdbinit.*", ".ipython/", "ipython_config.py", "{.,}jupyter*_config.{py,json}", ".pythonstartup",
        ".pythonrc*",
        ".jupyter/", "startup.m",
    )),
    Row("Python", "runs it", "at the start of every interpreter that finds it on its path", (
        "{site,user}customize.py", "{site,user}customize/", "*.{pth,egg-link,start}", "pyvenv.cfg", "__editable__*",
        "direct_url.json", "*.{dist-info,egg-info}/",
    )),
    Row("whoever uses this environment", "runs what is in it as interpreter, tool or library", "at the next command", (
        "{.env,env,.venv*,venv*,virtualenv,node_modules,.tox,.nox,site-packages,dist-packages,.eggs,__pypackages__}/",
        "bin/{python,pip,node,npm,npx,activate}*", "scripts/activate*", "vendor/bundle/", ".bundle/", ".pixi/",
    )),
    Row("a loader", "runs it in place of the source beside it", "at the next import or link", (
        "__pycache__/", "*.{pyc,pyo,so,dylib,dll,pyd,node,class,jar,war}", "*.so.*",
    )),
    Row("pytest, coverage or a test runner", "runs it or takes options from it", "before any test", (
        "conftest.py", "{.,}pytest.{ini,toml}", "tox.{ini,toml}", "setup.cfg", "{.,}coverage{rc,.rc,.toml}",
        "noxfile.py",
        ".{rspec,mocharc*,nycrc*}", "{spec,rails}_helper.rb", "phpunit.xml*",
    )),
    Row("a Python build back end or package manager", "runs it, or installs and runs what it names,", (
        "at the next install or build"
    ), (
        "pyproject.toml", "setup.py", "{hatch,pdm}_build.py", "build_backend.py", "manifest.in", "pip.{conf,ini}",
        ".pypirc",
        "uv.{toml,lock}", "poetry.{lock,toml}", "{pdm,pylock*}.{lock,toml}", "pipfile{.lock,}", "pixi.{toml,lock}",
        "conda{-lock,}.{yml,yaml}", "environment.{yml,yaml}", "{*-,}requirements*.{txt,in}",
        "requirements/*.{txt,in}",
        "constraints*.txt", ".condarc",
    )),
    Row("a JavaScript package manager", "runs its scripts, or installs and runs what it names,", (
        "at the next install, start or test"
    ), (
        "package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.{lock,lockb}",
        "deno.json{c,}", "deno.lock", ".npmrc", ".yarnrc{.yml,.yaml,}", ".yarn/", ".pnpmfile.{c,}js",
        "pnpm-workspace.yaml",
        "bunfig.toml", "binding.gyp", ".pnp.{c,}js", ".pnp.loader.mjs", "lerna.json", "nx.json", "turbo.json",
    )),
    Row("a JavaScript tool", "runs it as its configuration", "at the next build, test or lint", (
        "*.config.{c,m,}{js,ts}", "{webpack,vite,vitest,jest,babel}.*.config.{c,m,}{js,ts}", "babel.config.json",
        "{gulpfile,gruntfile,karma.conf}*.{c,m,}{js,ts}", "gulpfile.*/",
        ".{eslintrc,babelrc,prettierrc,swcrc,commitlintrc,stylelintrc,postcssrc}*",
    )),
    Row("a build tool or task runner", "runs it", "at the next build", (
        "{gnu,}makefile{.*,}", "*.mk", "cmakelists.txt", "cmake{user,}presets.json", "*.cmake", "configure{.ac,}",
        "*.m4",
        "{.,}justfile", "taskfile*.{yml,yaml}", "rakefile", "gemfile{.lock,}", "gems.{rb,locked}", "*.gemspec",
        "build.rs",
        ".cargo/", "cargo.{toml,lock}", "rust-toolchain*", "go.{mod,sum,work}", "{build,settings}.gradle*",
        "gradlew*",
        "gradle.properties", "init.gradle*", "gradle/", "buildsrc/", "pom.xml", "mvnw*", ".mvn/", "build.sbt",
        "project/*.{sbt,scala}", "build.xml", "meson{.build,_options.txt,.options}", "sconstruct", "sconscript",
        "wscript",
        "{build,workspace,module}{.bazel,}", ".bazelrc", "*.bzl", ".buckconfig", "buck", "fabfile.py", "dodo.py",
        "/{build,tasks}.py", "composer.{json,lock}", "mix.{exs,lock}", "*.{csproj,vcxproj,fsproj,props,targets,sln}",
        "directory.build.*", "nuget.config", "global.json", "package.swift", "podfile{.lock,}", "fastlane/",
        "build.zig{.zon,}",
        "stack.yaml", "*.cabal", "cabal.project*", "setup.hs", "dune", "dune-project", "makefile.pl", "build.pl",
        "deps.edn",
        "project.clj", "shadow-cljs.edn", ".goreleaser.{yml,yaml}",
    )),
    Row("a container engine, orchestrator or service manager", "runs what it names", "at the next build or start", (
        "{docker,container}file{.*,}", "*.{docker,container}file", "{docker-,podman-,}compose*.{yml,yaml}",
        ".dockerignore", "procfile*", "vagrantfile", "skaffold.{yml,yaml}", "chart.{yml,yaml}", "tiltfile",
        "*.{tf,tfvars,hcl}",
        "serverless.{yml,yaml}", "fly.toml", "{vercel,netlify,now,heroku}.json", "netlify.toml",
        "wrangler.{toml,json,jsonc}", "kustomization.{yml,yaml}", "pulumi*.{yml,yaml}", "ansible.cfg", ".htaccess",
        ".user.ini",
    )),
    Row("the init system, cron or desktop", "starts it", "at boot, at login or by the clock", (
        "*.{service,socket,timer,path,mount,automount,desktop,plist}", "crontab", "{cron.*,init.d,rc.d}/",
        "systemd/{system,user}/", "rc.local", "*.{crontab,cron}", "autostart/",
    )),
)  # fmt: skip
