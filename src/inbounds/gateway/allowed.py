"""What a request may contain, per wire format: fields, tool types, content types and headers, one line each.

Allowlists, because a provider's next feature may fetch, store or bill on the agent's behalf (ATTACKS, network). What is
refused by name has its reason here; what is in no list is refused as unknown. Data only.
"""

from inbounds.gateway.config import Format


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STORED = "it refers to state stored at the provider, which is not bounded by this request"
FETCHES = "the provider would reach the network on the agent's behalf"
PRICED_APART = "it is billed in a way that this gateway does not bound"
BACKGROUND = "the provider would go on working, and billing, after the connection ends"

FIELDS: dict[Format, frozenset[str]] = {
    Format.CHAT: _words(
        "model messages max_tokens max_completion_tokens temperature top_p n stream stream_options stop seed user "
        "presence_penalty frequency_penalty logit_bias logprobs top_logprobs tools tool_choice parallel_tool_calls "
        "functions function_call response_format reasoning_effort verbosity metadata store service_tier modalities "
        "prompt_cache_key prompt_cache_retention safety_identifier"
    ),
    Format.RESPONSES: _words(
        "model instructions input tools tool_choice parallel_tool_calls reasoning store stream stream_options include "
        "text truncation temperature top_p top_logprobs max_output_tokens max_tool_calls metadata client_metadata user "
        "prompt_cache_key prompt_cache_retention safety_identifier service_tier background"
    ),
    Format.MESSAGES: _words(
        "model messages max_tokens system metadata stop_sequences stream temperature top_k top_p tools tool_choice "
        "thinking output_config output_format context_management cache_control service_tier speed"
    ),
}

REFUSED_FIELDS: dict[str, str] = {
    "previous_response_id": STORED,
    "conversation": STORED,
    "prompt": STORED,
    "container": STORED,
    "mcp_servers": FETCHES,
    "web_search_options": FETCHES,
    "plugins": FETCHES,
    "prediction": PRICED_APART,
    "audio": PRICED_APART,
    "inference_geo": PRICED_APART,
    "best_of": PRICED_APART,
}

# The only values that these fields may have; anything else turns a bounded request into something else.
VALUES: dict[Format, dict[str, tuple[object, str]]] = {
    Format.CHAT: {
        "store": ((None, False), STORED),
        "n": ((None, 1), PRICED_APART),
        "service_tier": ((None, "auto", "default"), PRICED_APART),
        "modalities": ((None, ["text"]), PRICED_APART),
    },
    Format.RESPONSES: {
        "store": ((None, False), STORED),
        "background": ((None, False), BACKGROUND),
        "service_tier": ((None, "auto", "default"), PRICED_APART),
    },
    Format.MESSAGES: {
        "service_tier": ((None, "auto", "standard_only"), PRICED_APART),
        "speed": ((None, "standard"), PRICED_APART),
    },
}

# Tools that the agent itself carries out; Anthropic's own client tools carry a date after the name.
TOOL_TYPES: dict[Format, frozenset[str]] = {
    Format.CHAT: frozenset({"function", "custom"}),
    Format.RESPONSES: frozenset({"function", "custom", "local_shell", "apply_patch", "namespace"}),
    Format.MESSAGES: frozenset({"custom", "bash", "text_editor", "computer", "memory"}),
}

CONTENT_TYPES: dict[Format, frozenset[str]] = {
    Format.CHAT: frozenset({"text", "image_url", "refusal"}),
    Format.RESPONSES: _words(
        "message function_call function_call_output custom_tool_call custom_tool_call_output local_shell_call "
        "local_shell_call_output apply_patch_call apply_patch_call_output reasoning additional_tools "
        "input_text output_text input_image refusal summary_text reasoning_text text"
    ),
    Format.MESSAGES: _words(
        "text image tool_use tool_result thinking redacted_thinking document search_result tool_reference"
    ),
}

INCLUDES = frozenset({"reasoning.encrypted_content", "message.output_text.logprobs"})
CONTEXT_EDITS = ("clear_tool_uses_", "clear_thinking_")  # edits that only drop; compaction is a billed call of its own

# Headers of the agent that go on to the provider; all others (its key, cookies, hop-by-hop, telemetry) stay here.
REQUEST_HEADERS: dict[Format, frozenset[str]] = {
    Format.CHAT: frozenset({"accept"}),
    Format.RESPONSES: frozenset({"accept"}),
    Format.MESSAGES: frozenset({"accept", "anthropic-version", "anthropic-beta"}),
}
REPLY_HEADERS = frozenset({"content-type", "request-id", "x-request-id", "retry-after"})
