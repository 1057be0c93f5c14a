//! What answers the calls, and what keeps the record of them.

use anyhow::{Context, Result};
use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Gateway, Limits, Reply};

use crate::add_session::AddSession;
use crate::exchange::Recorder;
use crate::options::{CannedReply, Options, Upstream};
use crate::rules::Rules;
use crate::upstream::Forward;

pub struct Service {
    pub log: Log,
    pub forward: Forward,
    /// The gateway of this program, which writes the log itself.
    pub gateway: Option<Gateway>,
}

impl Service {
    pub fn start(options: &Options, rules: &Rules) -> Result<Self> {
        // Prompts may be secret, and the page shows only their first words.
        let limits = Limits::default().requests(options.keep.get()).bodies(0);
        let service = match &options.upstream {
            Some(upstream) => {
                let add = options.add_session.then(|| AddSession::new(upstream));
                Self::proxy(upstream, limits, rules, add.transpose()?)?
            }
            None => Self::loopback(options, limits)?,
        };
        if options.allow_forks {
            service.log.allow_forks();
        }
        if options.allow_edits {
            service.log.allow_edits();
        }
        Ok(service)
    }

    fn proxy(
        upstream: &Upstream,
        limits: Limits,
        rules: &Rules,
        add_session: Option<AddSession>,
    ) -> Result<Self> {
        let log = Log::with_limits(limits);
        let recorder = Recorder::new(log.clone(), rules.clone(), add_session);
        Ok(Self {
            log,
            forward: Forward::new(upstream.clone(), Some(recorder))?,
            gateway: None,
        })
    }

    fn loopback(options: &Options, limits: Limits) -> Result<Self> {
        let mut builder = Gateway::builder().limits(limits);
        for key in &options.key {
            builder = builder.key(key);
        }
        if !options.models.is_empty() {
            builder = builder.models(options.models.iter().cloned());
        }
        let gateway = builder.start().context("cannot start the gateway")?;
        for fail in &options.fail {
            gateway.fail_next(fail.count, fail.failure.clone());
        }
        for answer in &options.reply {
            match answer {
                CannedReply::Next(reply) => gateway.reply_next(reply.clone()),
                CannedReply::Title(title) => {
                    let reply = Reply::Text(title.clone());
                    gateway.reply_to(|call| call.kind() == "title", reply);
                }
            }
        }
        let upstream = Upstream::loopback(gateway.address())?;
        Ok(Self {
            log: gateway.log().clone(),
            forward: Forward::new(upstream, None)?,
            gateway: Some(gateway),
        })
    }
}
