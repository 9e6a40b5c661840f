"""The operator's side: where keys and providers are found, and what is refused before a run."""

import json
import os
import socket

import pytest
from gateway_rig import KEY

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway import keys as keys_module
from inbounds.gateway.config import Format
from inbounds.gateway.control import GatewayProcess
from inbounds.gateway.forward import proxy_for
from inbounds.gateway.keys import KeyStore
from inbounds.gateway.settings import keys_for, load_settings

LONG = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch):
    monkeypatch.setattr(keys_module, "_keyring", lambda: None)


def test_a_key_is_kept_listed_by_its_end_and_removed(tmp_path):
    store = KeyStore(tmp_path / "keys", {})
    assert store.list() == ()
    assert store.add("anthropic", f" {LONG}\n").last == "cdef"
    path = tmp_path / "keys" / "anthropic"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(path.parent).st_mode & 0o777 == 0o700
    assert store.get("anthropic") == LONG
    assert LONG not in repr(store.list())
    assert [(fact.provider, fact.where) for fact in store.list()] == [("anthropic", str(path))]
    store.add("anthropic", LONG + "2")
    assert store.get("anthropic") == LONG + "2"
    assert os.listdir(path.parent) == ["anthropic"]
    assert store.remove("anthropic")
    assert not store.remove("anthropic")
    assert store.get("anthropic") is None


def test_the_environment_is_a_source_after_what_was_stored(tmp_path):
    store = KeyStore(tmp_path / "keys", {"OPENAI_API_KEY": LONG, "ANTHROPIC_API_KEY": ""})
    assert [(fact.provider, fact.where) for fact in store.list()] == [("openai", "$OPENAI_API_KEY")]
    store.add("openai", "sk-stored-0123456789")
    assert store.get("openai") == "sk-stored-0123456789"


def test_a_key_that_others_can_reach_is_refused(tmp_path):
    store = KeyStore(tmp_path / "keys", {})
    store.add("openai", LONG)
    os.chmod(tmp_path / "keys" / "openai", 0o644)
    with pytest.raises(HostError, match="others"):
        store.get("openai")
    os.unlink(tmp_path / "keys" / "openai")
    os.symlink("/etc/passwd", tmp_path / "keys" / "openai")
    with pytest.raises(HostError):
        store.get("openai")


@pytest.mark.parametrize("key", ["", "a b", "x\ny", "sk-ant-oat01-abcdefghijklmnop", "k" * 5_000])
def test_what_can_be_no_key_is_refused_without_being_repeated(tmp_path, key):
    with pytest.raises(OperatorError) as raised:
        KeyStore(tmp_path, {}).add("anthropic", key)
    assert len(key) < 3 or key not in str(raised.value)
    with pytest.raises(OperatorError):
        KeyStore(tmp_path, {}).add("../x", LONG)


class Ring:
    """A keyring's part that is used."""

    class errors:  # noqa: N801 - keyring's own name
        class PasswordDeleteError(Exception):
            pass

    def __init__(self):
        self.held = {}

    def set_password(self, service, name, key):
        self.held[service, name] = key

    def get_password(self, service, name):
        return self.held.get((service, name))

    def delete_password(self, service, name):
        del self.held[service, name]


def test_a_real_keyring_is_preferred(tmp_path, monkeypatch):
    ring = Ring()
    monkeypatch.setattr(keys_module, "_keyring", lambda: ring)
    store = KeyStore(tmp_path, {})
    assert store.add("openai", LONG).where == "keyring"
    assert store.get("openai") == LONG
    assert [fact.where for fact in store.list()] == ["keyring"]
    assert not (tmp_path / "openai").exists()
    assert store.remove("openai")
    assert not ring.held
    assert store.list() == ()


def test_built_in_providers_serve_known_models(tmp_path):
    settings = load_settings(tmp_path / "absent.yaml", {})
    served = settings.serve(["claude-sonnet-4-5"], [Format.MESSAGES])
    assert list(served["upstreams"]) == ["anthropic"]
    assert served["models"]["claude-sonnet-4-5"]["output_tokens_max"] == 32_000
    assert list(settings.serve(["gpt-5"], [Format.RESPONSES])["upstreams"]) == ["openai"]
    with pytest.raises(OperatorError, match="no upstream"):
        settings.serve(["claude-sonnet-4-5"], [Format.RESPONSES])
    with pytest.raises(OperatorError, match="no upstream"):
        settings.serve(["nobody-knows-it"], list(Format))
    json.dumps(served)


def test_a_base_url_never_comes_from_the_environment(tmp_path):
    env = {"ANTHROPIC_BASE_URL": "https://evil.example", "OPENAI_BASE_URL": "https://evil.example"}
    assert "evil" not in repr(load_settings(tmp_path / "absent.yaml", env))


def test_the_operators_file_adds_and_changes(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "upstreams:\n  local: {base_url: 'http://127.0.0.1:9/v1', formats: [openai-chat], chat_output_field: max_tokens}\n"
        "  openai: {base_url: 'https://proxy.example/v1'}\n"
        "models:\n  tiny: {upstream: local, output_tokens_max: 500, "
        "price: {input_micro_usd_per_mtok: 0, output_micro_usd_per_mtok: 0}}\n"
    )
    settings = load_settings(file, {})
    served = settings.serve(["tiny"], [Format.CHAT])
    assert served["models"]["tiny"]["upstream_model"] == "tiny"
    assert settings.upstreams["openai"].base_url == "https://proxy.example/v1"
    assert settings.upstreams["openai"].auth_prefix == "Bearer "
    assert keys_for(served, KeyStore(tmp_path, {})) == {"upstreams": {"local": {"key": ""}}}
    with pytest.raises(OperatorError, match="speaks"):
        settings.serve(["tiny"], [Format.MESSAGES])
    with pytest.raises(OperatorError, match="no key"):
        keys_for(settings.serve(["gpt-5"], [Format.CHAT]), KeyStore(tmp_path, {}))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nonsense: 1\n", "unknown"),
        ("upstreams: [1]\n", "table"),
        ("upstreams: {x: {base_url: ftp://x}}\n", "base_url"),
        ("upstreams: {x: {base_url: 'http://u:p@x'}}\n", "password"),
        ("upstreams: {x: {base_url: 'http://x', color: red}}\n", "color"),
        ("upstreams: {bedrock: {base_url: 'https://x'}}\n", "Bedrock"),
        ("models: {m: {upstream: nowhere}}\n", "nowhere"),
        (
            "models: {m: {upstream: openai, price: {input_micro_usd_per_mtok: -1, output_micro_usd_per_mtok: 1}}}\n",
            "price",
        ),
        ("a: [\n", "YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, what):
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    with pytest.raises(OperatorError, match=what):
        load_settings(file, {})


def test_the_proxy_is_the_operators(tmp_path):
    env = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,.corp"}
    settings = load_settings(tmp_path / "absent.yaml", env)
    openai = settings.upstreams["openai"]
    assert proxy_for(openai, settings.proxy) == "http://proxy:3128"
    inside = type(openai)("x", openai.formats, "https://models.corp/v1", "A")
    assert proxy_for(inside, settings.proxy) is None


@pytest.mark.req("G1")
def test_keys_arrive_over_a_descriptor_that_nobody_else_reads(configure, provider):
    config = configure()
    bare = {name: type(up)(up.name, up.formats, up.base_url, up.auth_header) for name, up in config.upstreams.items()}
    held = os.memfd_create("inbounds-test-keys")
    os.write(held, json.dumps({"upstreams": {"acme": {"key": KEY, "base_url": "https://ignored"}}}).encode())
    gateway = GatewayProcess.start(configure(upstreams=bare), lambda _: None, keys_fd=held)
    os.close(held)
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        gateway.attach(listener, "agent")
        from gateway_rig import Running

        running = Running(gateway, config, listener.getsockname()[1], [])
        assert running.ask().status == 200
        listener.close()
    finally:
        gateway.stop()
    assert provider.seen[0].headers["x-api-key"] == KEY
