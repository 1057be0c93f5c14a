use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use reqwest_opencode_session::{Session, WithSession};
use rig::agent::{AgentHook, DispatchAction, DispatchEvent, HookContext};
use rig::effect::{EffectId, EffectKind, HandlerDescriptor};
use rig::error::{ErrorKind, ErrorReport};
use rig::serve::{Dispatch, Reply, Serve};

/// The session of each effect that the runs of one agent have dispatched.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<HashMap<EffectId, Session>>>);

impl AgentHook for Sessions {
    // The run itself polls this, so the ambient session is the run's own.
    async fn on_dispatch(&self, run: &HookContext, effect: DispatchEvent<'_>) -> DispatchAction {
        if let Some(session) = Session::current() {
            self.0.lock().unwrap().insert(effect.id, session);
            let entry = Arc::new(Entry(self.clone(), effect.id));
            run.scratchpad()
                .update(|entries: &mut Vec<_>| entries.push(entry));
        }
        DispatchAction::Proceed
    }
}

/// One effect of a run. It is forgotten when the run ends.
struct Entry(Sessions, EffectId);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().remove(&self.1);
    }
}

impl Sessions {
    /// Wraps a handler of models or tools, to work in the session of the run that it serves.
    pub fn around<H>(&self, handler: H) -> InSession<H> {
        InSession(self.clone(), handler)
    }
}

pub struct InSession<H>(Sessions, H);

impl<H: Serve> Serve for InSession<H> {
    type Family = H::Family;

    fn descriptor(&self) -> HandlerDescriptor {
        self.1.descriptor()
    }

    // Another run may poll this, so the ambient session may be that run's.
    async fn serve(&self, effect: EffectKind, dispatch: Dispatch) -> Reply {
        let session = self.0.0.lock().unwrap().get(&dispatch.id()).cloned();
        let Some(session) = session else {
            let error = ErrorReport::new(ErrorKind::Denied, "the run is in no session");
            return Reply::Outcome(Err(error));
        };
        match self.1.serve(effect, dispatch).with_session(&session).await {
            Reply::Stream(stream) => Reply::Stream(Box::pin(stream.with_session(session))),
            reply => reply,
        }
    }
}
