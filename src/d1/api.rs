//! D1's REST API: the statements that are sent, and the results.
//!
//! The API documents parameters as strings only, so numbers are sent as strings and cast. A model's name is never
//! part of a JSON path, because only as a value is every name safe.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One statement with its parameters (D1 takes at most 100).
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    sql: String,
    params: Vec<String>,
}

/// The parameters are left out, because keys are among them.
impl core::fmt::Debug for Statement {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Statement({})", self.sql)
    }
}

/// The rows of a page. The answer with a thousand rows has about 400 KB.
pub(crate) const PAGE_ROWS: usize = 1000;

/// The columns that are read.
const COLUMNS: &str = "id, key, provider, model_coolings, status, remark";
/// The rows of a JSON array of ids, which is the first parameter.
const THESE: &str = "id IN (SELECT value FROM json_each(?1))";

/// Reads the page of keys after the row `after`, or the first page if it is empty. An empty list of providers means
/// all providers.
pub(crate) fn select(after: &str, providers: &[String]) -> Statement {
    let mut params = vec![after.to_owned()];
    let mut only = String::new();
    if !providers.is_empty() {
        let marks: Vec<String> = (0..providers.len()).map(|index| format!("?{}", index + 2)).collect();
        only = format!(" AND provider IN ({})", marks.join(", "));
        params.extend(providers.iter().cloned());
    }
    let sql = format!("SELECT {COLUMNS} FROM keys WHERE id > ?1{only} ORDER BY id LIMIT {PAGE_ROWS}");
    Statement { sql, params }
}

/// Reads the rows of a provider's keys (a JSON array).
pub(crate) fn select_keys(provider: &str, keys: &str) -> Statement {
    let sql = format!("SELECT {COLUMNS} FROM keys WHERE provider = ?1 AND key IN (SELECT value FROM json_each(?2))");
    Statement { sql, params: vec![provider.to_owned(), keys.to_owned()] }
}

/// Inserts keys (a JSON array, which is one parameter for any number of keys) unless they exist, as the Worker does.
/// Returns the ids of the new rows. SQLite makes the UUIDs, because its randomness is better than the filter's. An
/// empty remark is stored as NULL.
pub(crate) fn insert(provider: &str, keys: &str, remark: &str) -> Statement {
    let hex = |bytes: u8| format!("lower(hex(randomblob({bytes})))");
    let sql = format!(
        "INSERT OR IGNORE INTO keys (id, key, provider, remark) \
         SELECT {four} || '-' || {two} || '-4' || substr({two}, 2) || '-' || \
         substr('89ab', 1 + (random() & 3), 1) || substr({two}, 2) || '-' || {six}, \
         value, ?2, nullif(?3, '') FROM json_each(?1) RETURNING id",
        four = hex(4),
        two = hex(2),
        six = hex(6)
    );
    Statement { sql, params: vec![keys.to_owned(), provider.to_owned(), remark.to_owned()] }
}

/// Deletes rows (a JSON array of ids), or only those that are blocked. Returns the ids of the deleted rows.
pub(crate) fn delete(rows: &str, only_blocked: bool) -> Statement {
    let only = if only_blocked { " AND status = 'blocked'" } else { "" };
    let sql = format!("DELETE FROM keys WHERE {THESE}{only} RETURNING id");
    Statement { sql, params: vec![rows.to_owned()] }
}

/// Activates rows (a JSON array of ids). Returns the ids of the rows.
pub(crate) fn activate(rows: &str) -> Statement {
    let sql = format!("UPDATE keys SET status = 'active' WHERE {THESE} RETURNING id");
    Statement { sql, params: vec![rows.to_owned()] }
}

/// Removes the cooling for a model, or all coolings, from rows (a JSON array of ids). Returns the ids of the rows. The
/// totals of cooling seconds keep their values.
pub(crate) fn clear(rows: &str, model: Option<&str>) -> Statement {
    let mut params = vec![rows.to_owned()];
    params.extend(model.map(str::to_owned));
    // A merge patch removes what it sets to null, whatever the name.
    let rest = match model {
        Some(_) => {
            "CASE WHEN json_valid(model_coolings) AND json_type(model_coolings) = 'object' \
             THEN json_patch(model_coolings, json_object(?2, NULL)) END"
        }
        None => "NULL",
    };
    Statement { sql: format!("UPDATE keys SET model_coolings = {rest} WHERE {THESE} RETURNING id"), params }
}

/// Blocks a key that is still active.
pub(crate) fn block(row: &str) -> Statement {
    Statement {
        sql: "UPDATE keys SET status = 'blocked' WHERE id = ?1 AND status = 'active'".to_owned(),
        params: vec![row.to_owned()],
    }
}

/// Writes a cooling as the Worker does: the later end is kept, and both totals grow by the seconds that it adds,
/// which are 0 if it is sent again.
///
/// `json_each` finds the model by its name, and `json_patch` (RFC 7396) puts it back; a column
/// that is not a JSON object counts as empty.
pub fn cool(row: &str, model: &str, from: u64, until: u64) -> Statement {
    let sql = "WITH old AS (\
        SELECT CASE WHEN json_valid(model_coolings) AND json_type(model_coolings) = 'object' \
        THEN model_coolings ELSE '{}' END AS coolings FROM keys WHERE id = ?1), \
        entry AS (SELECT \
        coalesce((SELECT CAST(json_extract(value, '$.end_at') AS INTEGER) FROM old, json_each(old.coolings) \
        WHERE json_each.key = ?2 AND json_each.type = 'object'), 0) AS old_end, \
        coalesce((SELECT CAST(json_extract(value, '$.total_seconds') AS INTEGER) FROM old, json_each(old.coolings) \
        WHERE json_each.key = ?2 AND json_each.type = 'object'), 0) AS old_total), \
        new AS (SELECT max(old_end, CAST(?4 AS INTEGER)) AS end_at, old_total, \
        max(0, CAST(?4 AS INTEGER) - max(old_end, CAST(?3 AS INTEGER))) AS added FROM entry) \
        UPDATE keys SET \
        model_coolings = json_patch((SELECT coolings FROM old), json_object(?2, json_object(\
        'end_at', (SELECT end_at FROM new), 'total_seconds', (SELECT old_total + added FROM new)))), \
        total_cooling_seconds = total_cooling_seconds + (SELECT added FROM new) \
        WHERE id = ?1";
    let params = vec![row.to_owned(), model.to_owned(), from.to_string(), until.to_string()];
    Statement { sql: sql.to_owned(), params }
}

/// The body of a call with these statements.
pub(crate) fn body(statements: &[Statement]) -> Vec<u8> {
    match statements {
        [one] => json!(one).to_string().into_bytes(),
        many => json!({ "batch": many }).to_string().into_bytes(),
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// There was no answer: the connection was refused or reset, or timed out.
    Unreachable,
    /// The token is wrong or lacks the permission.
    Token,
    /// The account or the database does not exist.
    Database,
    /// There were too many requests.
    RateLimited,
    /// D1 or Cloudflare failed.
    Server,
    /// D1 rejected the statement: the table is missing or has other columns.
    Statement,
    /// The answer does not have the documented form.
    Garbled,
}

impl Failure {
    /// All failures, in the order of their metrics.
    pub(crate) const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Token,
        Self::Database,
        Self::RateLimited,
        Self::Server,
        Self::Statement,
        Self::Garbled,
    ];

    /// The name in logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::Token => "token",
            Failure::Database => "database",
            Failure::RateLimited => "rate_limited",
            Failure::Server => "server",
            Failure::Statement => "statement",
            Failure::Garbled => "garbled",
        }
    }

    /// What happened, and what a person can do about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Failure::Unreachable => "D1 gives no answer; check the d1 cluster and the network",
            Failure::Token => {
                "D1 refuses the token; D1_API_TOKEN needs the permission D1 Edit on the database's account"
            }
            Failure::Database => "D1 has no such database; check D1_ACCOUNT_ID and D1_DATABASE_ID",
            Failure::RateLimited => "Cloudflare's API limit of this account is reached",
            Failure::Server => "D1 has a problem of its own",
            Failure::Statement => "D1 rejects the statement; has the one-balance migration been applied?",
            Failure::Garbled => "D1's answer does not have the form that its API documents",
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    success: bool,
    #[serde(default)]
    errors: Option<Vec<Problem>>,
    #[serde(default)]
    result: Option<Vec<StatementResult>>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: Option<i64>,
}

#[derive(Deserialize)]
struct StatementResult {
    success: bool,
    #[serde(default)]
    results: Option<Vec<Value>>,
}

/// The rows of each statement's result, if every statement succeeded.
///
/// # Errors
/// Why the call failed. The status decides, because one error code covers several causes; the only code that is used
/// is that of a missing database.
pub(crate) fn results(status: Option<u16>, body: &[u8]) -> Result<Vec<Vec<Value>>, Failure> {
    let envelope = serde_json::from_slice::<Envelope>(body);
    let no_database = envelope
        .as_ref()
        .is_ok_and(|envelope| envelope.errors.iter().flatten().any(|problem| problem.code == Some(7404)));
    match status {
        None => return Err(Failure::Unreachable),
        _ if no_database => return Err(Failure::Database),
        Some(401 | 403) => return Err(Failure::Token),
        Some(404) => return Err(Failure::Database),
        Some(429) => return Err(Failure::RateLimited),
        Some(400..=499) => return Err(Failure::Statement),
        Some(200..=299) => {}
        Some(_) => return Err(Failure::Server),
    }
    let envelope = envelope.map_err(|_| Failure::Garbled)?;
    let outcomes = envelope.result.filter(|_| envelope.success).ok_or(Failure::Garbled)?;
    let rows = outcomes.into_iter().map(|outcome| outcome.results.filter(|_| outcome.success));
    rows.map(|rows| rows.ok_or(Failure::Garbled)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let body = |statements: &[Statement]| serde_json::from_slice::<Value>(&body(statements)).unwrap();
        let one = select("", &["openai".to_owned(), "groq".to_owned()]);
        assert_eq!(body(core::slice::from_ref(&one))["params"], json!(["", "openai", "groq"]));
        assert!(one.sql.contains("WHERE id > ?1 AND provider IN (?2, ?3) ORDER BY id LIMIT 1000"));
        assert!(!select("x", &[]).sql.contains("provider IN"));
        let two = body(&[block("r1"), cool("r2", "we\"ird.[mod]el", 1, 2)]);
        assert_eq!(two["batch"][0]["params"], json!(["r1"]));
        assert_eq!(two["batch"][1]["params"], json!(["r2", "we\"ird.[mod]el", "1", "2"]));
    }

    #[test]
    fn inserts() {
        let keys = r#"["sk-1","sk-2"]"#;
        let insert = insert("openai", keys, "it's mine");
        assert_eq!(insert.params, [keys, "openai", "it's mine"]);
        assert!(!format!("{insert:?}").contains("sk-1"));
    }

    #[test]
    fn answers() {
        let good = br#"{"success":true,"errors":[],"messages":[],"result":[{"success":true,"results":[{"id":"a"}]},{"success":true,"results":[]}]}"#;
        assert_eq!(results(Some(200), good), Ok(vec![vec![json!({"id": "a"})], vec![]]));
        let failed = br#"{"success":false,"errors":[{"code":7500,"message":"no such table: keys"}],"result":[]}"#;
        let missing = br#"{"success":false,"errors":[{"code":7404,"message":"not found"}],"result":null}"#;
        for (status, body, failure) in [
            (None, &b""[..], Failure::Unreachable),
            (Some(401), failed, Failure::Token),
            (Some(403), b"<html>", Failure::Token),
            (Some(400), failed, Failure::Statement),
            (Some(400), missing, Failure::Database),
            (Some(404), b"", Failure::Database),
            (Some(429), b"", Failure::RateLimited),
            (Some(500), b"", Failure::Server),
            (Some(200), failed, Failure::Garbled),
            (Some(200), b"{\"success\":true,\"result\":[{\"succ", Failure::Garbled),
            (Some(200), br#"{"success":true,"result":null}"#, Failure::Garbled),
            (Some(200), br#"{"success":true,"result":[{"success":false}]}"#, Failure::Garbled),
        ] {
            assert_eq!(results(status, body), Err(failure), "{status:?}");
        }
    }
}
