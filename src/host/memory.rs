//! A host for tests, benchmarks and the simulation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use super::{Host, Store};
use crate::time::Time;

/// Shared data in memory, with Envoy's quirks, and a clock that the test sets.
#[derive(Debug, Default)]
pub struct Memory {
    /// The time.
    pub now: Cell<Time>,
    /// The number that [`Host::random`] returns.
    pub random: Cell<u64>,
    values: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    next_cas: Cell<u32>,
    /// Reads and writes so far.
    pub calls: Cell<usize>,
    /// Writes that shall lose their race.
    pub lose: Cell<usize>,
}

impl Store for Memory {
    fn get(&self, name: &str) -> Option<(Vec<u8>, u32)> {
        self.calls.set(self.calls.get() + 1);
        self.values.borrow().get(name).cloned()
    }

    fn set(&self, name: &str, value: &[u8], cas: Option<u32>) -> bool {
        self.calls.set(self.calls.get() + 1);
        if self.lose.get() > 0 {
            self.lose.set(self.lose.get() - 1);
            return false;
        }
        let mut values = self.values.borrow_mut();
        if let (Some((_, current)), Some(cas)) = (values.get(name), cas)
            && *current != cas
        {
            return false;
        }
        self.next_cas.set(self.next_cas.get().wrapping_add(1));
        values.insert(name.to_owned(), (value.to_vec(), self.next_cas.get()));
        true
    }
}

impl Memory {
    /// Copies all values to another memory.
    pub fn copy_to(&self, other: &Memory) {
        other.values.borrow_mut().clone_from(&self.values.borrow());
        other.next_cas.set(self.next_cas.get());
    }
}

impl Host for Memory {
    fn now(&self) -> Time {
        self.now.get()
    }

    fn random(&self) -> u64 {
        self.random.get()
    }
}
