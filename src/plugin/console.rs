//! The console's streams: answered from the pool, or held until D1 has acknowledged an edit.
//!
//! The call is the stream's own. When the client goes away meanwhile, its answer reaches nobody; D1
//! has the edit or not, and the next read says which.

use std::rc::Rc;

use super::{Shared, host, root};
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

/// The pool as it is asked for.
pub fn status(balancer: &Shared, config: &Config, query: &Query) -> Result<Rendered, Reply> {
    status::answer(&mut balancer.borrow_mut().pool, &host::SharedData, config, query, host::now())
}

impl Editing {
    pub fn new(verb: Verb, config: Rc<Config>) -> Self {
        Editing { verb, config, call: None }
    }

    /// The body is complete: the call to D1 goes out. An answer if it comes to none.
    pub fn begin(&mut self, balancer: &Shared, body: &[u8]) -> Option<Result<Rendered, Reply>> {
        let pool = &mut balancer.borrow_mut().pool;
        let task = match Task::read(self.verb, body, pool, &host::SharedData, &self.config, host::now()) {
            Ok(task) => task,
            Err(reply) => return Some(Err(reply)),
        };
        let (Some(call), Some(d1)) = (task.call(&self.config), &self.config.d1) else {
            return Some(Ok(task.nothing()));
        };
        match root::dispatch(d1, &call) {
            Some(token) => self.call = Some((task, token)),
            None => return Some(Err(edit::failed(Failure::Unreachable))),
        }
        None
    }

    /// A call's answer; ours, if it was this edit's call.
    pub fn answered(&self, balancer: &Shared, token: u32, answer: &Answer) -> Option<Result<Rendered, Reply>> {
        let (task, _) = self.call.as_ref().filter(|(_, own)| *own == token)?;
        let pool = &mut balancer.borrow_mut().pool;
        Some(task.answered(pool, &host::SharedData, &self.config, answer, host::now()))
    }
}
