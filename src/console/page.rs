//! The page: three files, as they lie beside this one, and what browsers are told about them.
//!
//! They are served as they are: no build, nothing from elsewhere. The policy lets the page run only
//! these files and speak only to where it came from, so that text from outside that got into it
//! could neither run nor leave.

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

/// What the page may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

impl File {
    /// The file of this name; the page has none.
    pub fn find(name: &str) -> Option<File> {
        match name {
            "" => Some(File::Html),
            "page.js" => Some(File::Js),
            "page.css" => Some(File::Css),
            _ => None,
        }
    }

    /// The answer that holds it.
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

/// The way from the address without a slash, from which the files would not be found.
pub fn moved() -> Rendered {
    let mut answer = Rendered::new(308, "text/plain", "");
    answer.headers.push(("location", "/one-balance/".to_owned()));
    answer
}

/// What every answer of the console says: take it for what it is, for nobody else, and do not keep it.
/// The files are small, and one that was kept would outlive the module it belongs to.
pub fn guards() -> impl Iterator<Item = (&'static str, String)> {
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

    /// The module as a whole has 1 MiB.
    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.answer().body.len()).sum();
        assert!((1024..40 << 10).contains(&bytes), "{bytes} bytes");
    }

    /// What the policy would refuse, found before a browser does.
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
