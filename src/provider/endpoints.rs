//! The endpoints at which a request shows which model it uses.
//!
//! An AUTH_KEY may be restricted to some models of a provider. That means something only where the model that
//! is read here is the model that the provider will use. It is so at the endpoints in these tables: the
//! model is in the path, in one field of a JSON body or form, or in the query of an upgrade. Everything else
//! either reads or changes what belongs to the account (files, batches, histories, users, stored answers),
//! or names its model in a place of its own. An allow-list is used because a list of what is forbidden would
//! be wrong on the day on which a provider adds an endpoint.
//!
//! A path is written as segments: `{}` is any one segment, and `{model}` is one segment of the model's name. What
//! follows `{model}` in its segment is the verb. Paths are below the base URL of the provider.

use crate::http::url::percent_decode;

/// The endpoints of a provider that can be judged.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `POST` with the model in the path, whatever the body says.
    pub in_path: &'static [&'static str],
    /// `POST` with the model in the JSON body.
    pub in_json: &'static [&'static str],
    /// `POST` with the model in a form, or in a JSON body.
    pub in_form: &'static [&'static str],
    /// `GET` of the provider's list of models. It is the same for every model.
    pub lists: &'static [&'static str],
    /// `GET` of what is known of one model.
    pub reads: &'static [&'static str],
    /// Upgrades with the model in the query, each with all the parameters that it may have: another
    /// parameter may name a session of another model.
    pub upgrades: &'static [(&'static str, &'static [&'static str])],
    /// Whether the client may write a version (`/v1`) before the path.
    pub versioned: bool,
}

/// What a request does at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET` or `HEAD`.
    Read,
    /// `POST`.
    Post,
    /// `GET` with an upgrade to WebSocket.
    Upgrade,
}

/// Where a request to an endpoint names its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path: this model.
    Path(String),
    /// In its JSON body.
    Json,
    /// In its form or its JSON body.
    Form,
    /// In its query, which may have these parameters.
    Query(&'static [&'static str]),
    /// Nowhere, because it uses none.
    Nowhere,
}

impl Endpoints {
    /// Where a request to this path, below the base URL, names its model. `None` if it cannot be judged.
    pub fn find(&self, call: Call, path: &str) -> Option<Place> {
        let decoded: Vec<_> = path.strip_prefix('/')?.split('/').map(percent_decode).collect();
        let segments: Vec<&str> = decoded.iter().map(|segment| &**segment).collect();
        let below_version = segments.split_first().filter(|(first, _)| self.versioned && is_version(first));
        let segments = below_version.map_or(segments.as_slice(), |(_, rest)| rest);
        let model = |patterns: &[&str]| patterns.iter().find_map(|pattern| matched(pattern, segments));
        let is_among = |patterns: &[&str]| model(patterns).is_some();
        match call {
            Call::Read if is_among(self.lists) => Some(Place::Nowhere),
            Call::Read => model(self.reads).map(Place::Path),
            Call::Post if is_among(self.in_json) => Some(Place::Json),
            Call::Post if is_among(self.in_form) => Some(Place::Form),
            Call::Post => model(self.in_path).map(Place::Path),
            Call::Upgrade => {
                let mut upgrades = self.upgrades.iter();
                upgrades.find(|(path, _)| is_among(&[path])).map(|(_, parameters)| Place::Query(parameters))
            }
        }
    }
}

/// `v1`, `v1beta`, `v1alpha`.
fn is_version(segment: &str) -> bool {
    let version = segment.strip_prefix('v').unwrap_or_default();
    version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The model that the segments name if they are of this pattern. It is empty if the pattern has none.
fn matched(pattern: &str, segments: &[&str]) -> Option<String> {
    let wanted: Vec<&str> = pattern.split('/').collect();
    if wanted.len() != segments.len() {
        return None;
    }
    let mut model: Vec<&str> = Vec::new();
    for (wanted, segment) in wanted.into_iter().zip(segments) {
        if let Some(verb) = wanted.strip_prefix("{model}") {
            model.push(segment.strip_suffix(verb).filter(|name| !name.is_empty())?);
        } else if (wanted == "{}" && segment.is_empty()) || (wanted != "{}" && wanted != *segment) {
            return None;
        }
    }
    Some(model.join("/"))
}

const NONE: Endpoints =
    Endpoints { in_path: &[], in_json: &[], in_form: &[], lists: &[], reads: &[], upgrades: &[], versioned: true };

/// A server that follows OpenAI's API, with what is common beside it: Anthropic's messages, reranking and
/// Ollama's own API.
pub const COMPATIBLE: Endpoints = Endpoints {
    in_json: &[
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "responses/input_tokens",
        "messages",
        "messages/count_tokens",
        "moderations",
        "rerank",
        "score",
        "audio/speech",
        "images/generations",
        "api/chat",
        "api/generate",
        "api/embed",
        "api/embeddings",
    ],
    in_form: &["audio/transcriptions", "audio/translations", "images/edits", "images/variations"],
    lists: &["models", "api/tags"],
    reads: &["models/{model}"],
    ..NONE
};

/// OpenAI's own API. A stored prompt may name a model, but the body's `model` goes before it.
pub const OPENAI: Endpoints = Endpoints {
    in_json: &[
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "responses/compact",
        "responses/input_tokens",
        "moderations",
        "audio/speech",
        "images/generations",
    ],
    in_form: &["audio/transcriptions", "audio/translations", "images/edits", "images/variations"],
    lists: &["models"],
    // A session cannot change its model. `call_id` would name somebody else's session.
    upgrades: &[("realtime", &["model"])],
    ..COMPATIBLE
};

/// xAI's.
pub const GROK: Endpoints = Endpoints {
    in_json: &[
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "messages",
        "images/generations",
        "images/edits",
        "tokenize-text",
    ],
    in_form: &[],
    lists: &["models", "language-models", "embedding-models", "image-generation-models"],
    reads: &[
        "models/{model}",
        "language-models/{model}",
        "embedding-models/{model}",
        "image-generation-models/{model}",
    ],
    ..OPENAI
};

/// Groq's, Cerebras's, Perplexity's and Hugging Face's: what OpenAI's clients need.
pub const FOLLOWER: Endpoints = Endpoints {
    in_json: &["chat/completions", "completions", "embeddings", "responses", "audio/speech", "images/generations"],
    in_form: &["audio/transcriptions", "audio/translations"],
    lists: &["models"],
    ..COMPATIBLE
};

/// OpenRouter's. Its names of models have two segments.
pub const OPENROUTER: Endpoints = Endpoints {
    in_json: &["chat/completions", "completions", "embeddings", "responses", "messages", "rerank"],
    lists: &["models", "models/count", "embeddings/models"],
    reads: &["models/{model}/{model}/endpoints"],
    ..NONE
};

/// Mistral's. Agents and conversations have models of their own.
pub const MISTRAL: Endpoints = Endpoints {
    in_json: &[
        "chat/completions",
        "fim/completions",
        "embeddings",
        "moderations",
        "chat/moderations",
        "classifications",
        "chat/classifications",
        "ocr",
        "audio/speech",
    ],
    in_form: &["audio/transcriptions"],
    lists: &["models"],
    ..COMPATIBLE
};

/// DeepSeek's.
pub const DEEPSEEK: Endpoints = Endpoints {
    in_json: &[
        "chat/completions",
        "completions",
        "beta/chat/completions",
        "beta/completions",
        "anthropic/messages",
        "anthropic/v1/messages",
    ],
    in_form: &[],
    lists: &["models"],
    ..COMPATIBLE
};

/// Cohere's.
pub const COHERE: Endpoints = Endpoints {
    in_json: &[
        "chat",
        "generate",
        "embed",
        "rerank",
        "tokenize",
        "detokenize",
        "compatibility/v1/chat/completions",
        "compatibility/v1/embeddings",
    ],
    lists: &["models"],
    reads: &["models/{model}"],
    ..NONE
};

/// Anthropic's. Each request of a batch names a model of its own.
pub const ANTHROPIC: Endpoints = Endpoints {
    in_json: &["messages", "messages/count_tokens", "complete", "chat/completions"],
    lists: &["models"],
    reads: &["models/{model}"],
    ..NONE
};

/// Gemini's, and its OpenAI-style API. A batch, a video and an agent are jobs, which are read later.
pub const GEMINI: Endpoints = Endpoints {
    in_path: &[
        "models/{model}:generateContent",
        "models/{model}:streamGenerateContent",
        "models/{model}:countTokens",
        "models/{model}:embedContent",
        "models/{model}:batchEmbedContents",
        "models/{model}:predict",
        "tunedModels/{model}:generateContent",
        "tunedModels/{model}:streamGenerateContent",
    ],
    in_json: &["openai/chat/completions", "openai/embeddings", "openai/images/generations"],
    lists: &["models", "openai/models"],
    reads: &["models/{model}", "openai/models/{model}"],
    ..NONE
};

/// Vertex AI's models of Google and of others, and its OpenAI-style API.
pub const VERTEX: Endpoints = Endpoints {
    in_path: &[
        "projects/{}/locations/{}/publishers/{}/models/{model}:generateContent",
        "projects/{}/locations/{}/publishers/{}/models/{model}:streamGenerateContent",
        "projects/{}/locations/{}/publishers/{}/models/{model}:countTokens",
        "projects/{}/locations/{}/publishers/{}/models/{model}:embedContent",
        "projects/{}/locations/{}/publishers/{}/models/{model}:predict",
        "projects/{}/locations/{}/publishers/{}/models/{model}:rawPredict",
        "projects/{}/locations/{}/publishers/{}/models/{model}:streamRawPredict",
    ],
    in_json: &["projects/{}/locations/{}/endpoints/openapi/chat/completions"],
    ..NONE
};

/// Azure's deployments, which take no notice of a body's `model`.
pub const AZURE: Endpoints = Endpoints {
    in_path: &[
        "{}/{model}/chat/completions",
        "{}/{model}/completions",
        "{}/{model}/embeddings",
        "{}/{model}/audio/speech",
        "{}/{model}/audio/transcriptions",
        "{}/{model}/audio/translations",
        "{}/{model}/images/generations",
        "{}/{model}/images/edits",
    ],
    versioned: false,
    ..NONE
};

/// Replicate's. A prediction is read later by its id, so that a restricted client waits for it (`prefer: wait`).
pub const REPLICATE: Endpoints = Endpoints {
    in_path: &["models/{model}/{model}/predictions", "deployments/{model}/{model}/predictions"],
    in_json: &["predictions"],
    reads: &["models/{model}/{model}"],
    ..NONE
};

/// Cartesia's. Its WebSocket names the model in its messages.
pub const CARTESIA: Endpoints = Endpoints { in_json: &["tts/bytes", "tts/sse"], versioned: false, ..NONE };

const SPEECH_PARAMETERS: &[&str] = &[
    "model_id",
    "language_code",
    "output_format",
    "enable_logging",
    "enable_ssml_parsing",
    "inactivity_timeout",
    "optimize_streaming_latency",
    "sync_alignment",
    "auto_mode",
    "apply_text_normalization",
    "seed",
];

/// ElevenLabs's.
pub const ELEVENLABS: Endpoints = Endpoints {
    in_json: &[
        "text-to-speech/{}",
        "text-to-speech/{}/stream",
        "text-to-speech/{}/with-timestamps",
        "text-to-speech/{}/stream/with-timestamps",
        "text-to-dialogue",
        "text-to-dialogue/stream",
        "sound-generation",
        "music",
        "music/stream",
    ],
    in_form: &["speech-to-text", "speech-to-speech/{}", "speech-to-speech/{}/stream"],
    lists: &["models"],
    upgrades: &[
        ("text-to-speech/{}/stream-input", SPEECH_PARAMETERS),
        ("text-to-speech/{}/multi-stream-input", SPEECH_PARAMETERS),
    ],
    ..NONE
};

/// Bedrock's. An asynchronous job names its model elsewhere (`modelId`).
pub const BEDROCK: Endpoints = Endpoints {
    in_path: &[
        "bedrock-runtime/{}/model/{model}/invoke",
        "bedrock-runtime/{}/model/{model}/invoke-with-response-stream",
        "bedrock-runtime/{}/model/{model}/converse",
        "bedrock-runtime/{}/model/{model}/converse-stream",
        "bedrock-runtime/{}/model/{model}/count-tokens",
        "{}/model/{model}/invoke",
        "{}/model/{model}/invoke-with-response-stream",
        "{}/model/{model}/converse",
        "{}/model/{model}/converse-stream",
        "{}/model/{model}/count-tokens",
    ],
    in_json: &["bedrock-runtime/{}/openai/v1/chat/completions"],
    versioned: false,
    ..NONE
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let path = |model: &str| Some(Place::Path(model.to_owned()));
        for (endpoints, call, at, expected) in [
            (&GEMINI, Call::Post, "/v1beta/models/g:generateContent", path("g")),
            (&GEMINI, Call::Post, "/v1beta/%6dodels/g%3AgenerateContent", path("g")),
            (&GEMINI, Call::Post, "/v1beta/models/g%253AgenerateContent", None),
            (&GEMINI, Call::Post, "/v1beta/models/:generateContent", None),
            (&GEMINI, Call::Post, "/v1beta/models/g:batchGenerateContent", None),
            (&GEMINI, Call::Post, "/v1beta/models/models/g:generateContent", None),
            (&GEMINI, Call::Post, "/v1beta/dynamic/g:generateContent", None),
            (&GEMINI, Call::Read, "/v1beta/models/g:generateContent", path("g:generateContent")),
            (&GEMINI, Call::Read, "/v1beta/models/g", path("g")),
            (&GEMINI, Call::Read, "/v1beta/models", Some(Place::Nowhere)),
            (&GEMINI, Call::Read, "/v1beta/files", None),
            (&OPENAI, Call::Post, "/chat/completions", Some(Place::Json)),
            (&OPENAI, Call::Post, "/v1/chat/completions", Some(Place::Json)),
            (&OPENAI, Call::Post, "/v1/v1/chat/completions", None),
            (&OPENAI, Call::Post, "/chat/completions/", None),
            (&OPENAI, Call::Post, "//chat/completions", None),
            (&OPENAI, Call::Read, "/chat/completions", None),
            (&OPENAI, Call::Post, "/audio/transcriptions", Some(Place::Form)),
            (&OPENAI, Call::Upgrade, "/realtime", Some(Place::Query(&["model"]))),
            (&OPENAI, Call::Upgrade, "/responses", None),
            (&AZURE, Call::Post, "/res/dep/chat/completions", path("dep")),
            (&AZURE, Call::Post, "/v1/res/dep/chat/completions", None),
            (&REPLICATE, Call::Post, "/v1/models/meta/llama/predictions", path("meta/llama")),
            (&BEDROCK, Call::Post, "/bedrock-runtime/us-east-1/model/a.b-v2:0/invoke", path("a.b-v2:0")),
            (&BEDROCK, Call::Post, "/bedrock-runtime/us-east-1/async-invoke", None),
        ] {
            assert_eq!(endpoints.find(call, at), expected, "{call:?} {at}");
        }
    }
}
