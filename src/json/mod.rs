//! JSON as bytes: read, searched, followed and written without a tree of values.
//!
//! Bodies are large and mostly text that goes on as it came, so the filter finds ranges in a body instead
//! of building values, and a rewrite leaves every other byte alone. serde_json reads the small texts
//! (configuration, errors, schemas) and is the standard that these parts are tested against. The room has
//! four parts, and knows no field of any provider:
//!
//! - [`search`]: a few top-level fields of a request, with the whole body checked.
//! - [`document`]: a flat index of every value, for a body that is translated.
//! - [`scanner`]: the values of a few keys in an answer that arrives in pieces and is never kept.
//! - [`writer`]: JSON, written piece by piece.
//!
//! Below them are [`reader`], which checks the grammar and skips values, and [`string`], which finds where
//! strings end and resolves their escapes. [`text`] is a string's text that travels with its escapes.

mod document;
mod reader;
pub(crate) mod scanner;
mod search;
pub(crate) mod string;
mod text;
mod writer;

pub(crate) use document::{Document, Items, Node};
pub use search::Unreadable;
pub(crate) use search::{Search, fields, fields_in_exact_case, string};
pub(crate) use text::Text;
pub(crate) use writer::Writer;
