//! Images, sound and files in a message.
//!
//! OpenAI has a shape of its own for each of the three, and both targets only know bytes with a type and
//! links, so all three become one [`Source`]. Which types a target accepts is decided in the dialect. A
//! link is passed on and never fetched, because the filter opens no connections for a client, and base64
//! is passed on unread, because it is the largest part of a body and the provider checks it anyway.

use std::borrow::Cow;

use super::fields::{Fields, Refusal};
use crate::json::Text;

/// One piece of media.
#[derive(Debug, PartialEq)]
pub(super) struct Media<'d> {
    /// The field that has it, for refusals.
    pub field: String,
    pub source: Source<'d>,
    /// The file's name, if the client gave one.
    pub name: Option<Text<'d>>,
}

/// Where the bytes are.
#[derive(Debug, PartialEq)]
pub(super) enum Source<'d> {
    /// In the request, as base64.
    Inline { mime: String, base64: Text<'d> },
    /// At a link, from which the provider fetches them. The type is known if the link's ending shows it.
    Link { mime: Option<&'static str>, url: Text<'d> },
}

/// `image_url: {url, detail}`. Neither target has a `detail`, which only sets OpenAI's price.
pub(super) fn image<'d>(part: &mut Fields<'_, 'd>) -> Result<Media<'d>, Refusal> {
    let mut image = part.required_object("image_url")?;
    let url = image.required_text("url")?;
    let source = source(url.decoded()).ok_or_else(|| image.refuse("url", NO_SOURCE))?;
    Ok(Media { field: image.path("url").to_string(), source, name: None })
}

/// `input_audio: {data, format}`.
pub(super) fn audio<'d>(part: &mut Fields<'_, 'd>) -> Result<Media<'d>, Refusal> {
    let mut audio = part.required_object("input_audio")?;
    let base64 = audio.required_text("data")?;
    let format = audio.required_text("format")?.decoded();
    if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(audio.refuse("format", "must be a format such as wav or mp3"));
    }
    let source = Source::Inline { mime: format!("audio/{format}"), base64 };
    Ok(Media { field: part.path("input_audio").to_string(), source, name: None })
}

/// `file: {file_data, filename}`, or a link in `file_id`, such as the URIs of Gemini's Files API.
pub(super) fn file<'d>(part: &mut Fields<'_, 'd>) -> Result<Media<'d>, Refusal> {
    let mut file = part.required_object("file")?;
    let name = file.text("filename")?;
    let (field, text) = match (file.text("file_data")?, file.text("file_id")?) {
        (Some(data), _) => ("file_data", data.decoded()),
        (None, Some(id)) => match id.decoded() {
            id if id.starts_with("https://") => ("file_id", id),
            _ => return Err(file.refuse("file_id", "names a file at OpenAI, which other providers cannot read")),
        },
        (None, None) => return Err(file.refuse("file_data", "is missing")),
    };
    let source = source(text).ok_or_else(|| file.refuse(field, NO_SOURCE))?;
    Ok(Media { field: file.path(field).to_string(), source, name })
}

const NO_SOURCE: &str = "must be data:{type};base64,{data} or begin with https://";

fn source(url: Cow<'_, str>) -> Option<Source<'_>> {
    if let Some(rest) = url.strip_prefix("data:") {
        let (head, base64) = rest.split_once(',')?;
        let (mime, _) = head.strip_suffix(";base64")?.split_once(';').unwrap_or((head.strip_suffix(";base64")?, ""));
        let mime = mime.contains('/').then(|| mime.to_ascii_lowercase())?;
        // A wrong name that OpenAI accepts, and neither Gemini nor Anthropic does.
        let mime = if mime == "image/jpg" { "image/jpeg".to_owned() } else { mime };
        let start = url.len() - base64.len();
        return Some(Source::Inline { mime, base64: Text::of(tail(url, start)) });
    }
    let linked = ["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme));
    linked.then(|| Source::Link { mime: mime_of(&url), url: Text::of(url) })
}

/// The text from `start` on. Images are large, so it is copied only if the text is owned.
fn tail(text: Cow<'_, str>, start: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(start..).unwrap_or_default()),
        Cow::Owned(mut text) => Cow::Owned(text.split_off(start)),
    }
}

fn mime_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "mp3" => "audio/mp3",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let inline = |mime: &str, base64| Some(Source::Inline { mime: mime.to_owned(), base64: Text::escaped(base64) });
        let link = |mime, url| Some(Source::Link { mime, url: Text::escaped(url) });
        for (url, expected) in [
            ("data:image/png;base64,AA==", inline("image/png", "AA==")),
            ("data:Image/PNG;name=a.png;base64,AA==", inline("image/png", "AA==")),
            ("data:image/jpg;base64,AA==", inline("image/jpeg", "AA==")),
            ("data:image/png,AA", None),
            ("data:;base64,AA", None),
            ("data:image/png;base64", None),
            ("https://h/a.JPG?x=y.png", link(Some("image/jpeg"), "https://h/a.JPG?x=y.png")),
            ("https://h.png/a", link(None, "https://h.png/a")),
            ("gs://b/a.pdf", link(Some("application/pdf"), "gs://b/a.pdf")),
            ("file:///etc/passwd", None),
            ("iVBORw0", None),
        ] {
            assert_eq!(source(url.into()), expected, "{url}");
            assert_eq!(source(url.to_owned().into()), expected, "{url}");
        }
    }
}
