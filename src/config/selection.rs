//! How the operator wants keys to be picked; [`crate::pool::select`] carries it out.

/// How keys are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// In turn, over all workers.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
    /// Of two by chance, the one that was used less (this minute, then this day): close to the
    /// least used of all, at the cost of two reads whatever the size of the pool.
    LeastUsed,
    /// Requests of one conversation get the same key while it is healthy, so that the provider's
    /// prompt cache pays; others are served in turn.
    Sticky,
}
