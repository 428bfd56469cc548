//! The page: three files from the folder beside this module, and their security headers.
//!
//! The files are served unchanged: there is no build step and no external resource. The policy lets the page run
//! only these files and send requests only to its own origin, so that injected text could neither run nor send data
//! elsewhere.

use crate::reply::Rendered;

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The page itself.
    Html,
    /// Its script.
    Js,
    /// Its style.
    Css,
}

/// The content security policy.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

impl File {
    /// The file with this name; the page itself has an empty name.
    pub(crate) fn find(name: &str) -> Option<File> {
        match name {
            "" => Some(File::Html),
            "page.js" => Some(File::Js),
            "page.css" => Some(File::Css),
            _ => None,
        }
    }

    /// The answer with the file.
    pub fn answer(self) -> Rendered {
        let (content_type, text) = match self {
            File::Html => ("text/html; charset=utf-8", include_str!("page/index.html")),
            File::Js => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
            File::Css => ("text/css; charset=utf-8", include_str!("page/page.css")),
        };
        let mut answer = Rendered::new(200, content_type, text);
        answer.headers.push(("content-security-policy", POLICY.to_owned()));
        answer.headers.extend(guards());
        answer
    }
}

/// The redirect from the address without a slash, relative to which the files would not be found.
pub(crate) fn moved() -> Rendered {
    let mut answer = Rendered::new(308, "text/plain", "");
    answer.headers.push(("location", "/one-balance/".to_owned()));
    answer
}

/// The headers of every answer of the console: nosniff, no referrer, same origin, no-store. The files are small, and a
/// cached one could be older than the module that answers its requests.
pub(crate) fn guards() -> impl Iterator<Item = (&'static str, String)> {
    [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [File; 3] = [File::Html, File::Js, File::Css];

    /// The module as a whole may have 1 MiB.
    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.answer().body.len()).sum();
        assert!((1024..40 << 10).contains(&bytes), "{bytes} bytes");
    }

    /// Finds what the policy would block in a browser.
    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        let html = String::from_utf8(File::Html.answer().body).unwrap();
        for bad in ["http:", "https:", "<style", " style=", " onclick", "javascript:", "<script>"] {
            assert!(!html.contains(bad), "{bad}");
        }
        let js = String::from_utf8(File::Js.answer().body).unwrap();
        for bad in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "cookie"]
        {
            assert!(!js.contains(bad), "{bad}");
        }
    }
}
