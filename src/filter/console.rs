//! The console's streams: answered from the pool, or held until D1 has acknowledged an edit.
//!
//! The call is the stream's own. If the client leaves meanwhile, its answer reaches nobody; D1 has the edit or
//! not, and the next read says which.

use std::rc::Rc;

use super::{SharedBalancer, Stream};
use crate::config::Config;
use crate::console::edit::{self, Task, Verb};
use crate::console::status::{self, Query};
use crate::d1::Answer;
use crate::d1::api::Failure;
use crate::reply::{Rendered, Reply};

/// An edit under way, with the configuration that it began with.
pub struct Editing {
    verb: Verb,
    config: Rc<Config>,
    /// What D1 was asked to do, and the token of the call.
    call: Option<(Task, u32)>,
}

/// The pool, as far as the query wants it.
///
/// # Errors
/// Returns the reply to a query that cannot be answered.
pub fn status(balancer: &SharedBalancer, config: &Config, query: &Query) -> Result<Rendered, Reply> {
    let mut balancer = balancer.borrow_mut();
    let host = balancer.host.clone();
    status::answer(&mut balancer.pool, &*host, config, query)
}

impl Editing {
    /// An edit whose body has not been read.
    pub fn new(verb: Verb, config: Rc<Config>) -> Self {
        Editing { verb, config, call: None }
    }

    /// The body is complete: calls D1. Returns an answer if nothing has to be called.
    pub fn begin(
        &mut self,
        stream: &dyn Stream,
        balancer: &SharedBalancer,
        body: &[u8],
    ) -> Option<Result<Rendered, Reply>> {
        let task = match Task::read(self.verb, body, &mut balancer.borrow_mut().pool, &self.config) {
            Ok(task) => task,
            Err(reply) => return Some(Err(reply)),
        };
        let (Some(call), Some(d1)) = (task.call(&self.config), &self.config.d1) else {
            return Some(Ok(task.nothing()));
        };
        match stream.call_d1(d1, &call) {
            Some(token) => self.call = Some((task, token)),
            None => return Some(Err(edit::failed(Failure::Unreachable))),
        }
        None
    }

    /// A call to D1 was answered. Returns our answer if it was this edit's call.
    pub fn answered(&self, balancer: &SharedBalancer, token: u32, answer: &Answer) -> Option<Result<Rendered, Reply>> {
        let (task, _) = self.call.as_ref().filter(|(_, own)| *own == token)?;
        let mut balancer = balancer.borrow_mut();
        let host = balancer.host.clone();
        Some(task.answered(&mut balancer.pool, &*host, &self.config, answer))
    }
}
