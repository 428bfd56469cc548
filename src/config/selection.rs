//! How keys are chosen; [`crate::pool::select`] implements it.

/// How the next key is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// In turn, over all workers.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// Of two random keys, the one that was used less in this minute, then in this day. This comes close to the least
    /// used of all keys, and costs two reads for a pool of any size.
    LeastUsed,
    /// Requests of one conversation get the same key while it can be used, so that the provider's prompt cache is
    /// effective. Other requests use keys in turn.
    Sticky,
}
