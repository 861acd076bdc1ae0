//! A transport that fails on command. Written without `async_trait`, which this crate does not depend on.

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use headless_abstractions::{
    Error, ErrorKind, GroupName, Message, Result, Sent, Subscriber, Subscription, Topology, Transport,
    TransportCapabilities, TransportInfo,
};

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub(crate) type Wrap = Box<dyn Fn(Box<dyn Subscriber>) -> Box<dyn Subscriber> + Send>;
type Rule = Box<dyn FnMut(Option<&Message>) -> Option<Error> + Send>;

/// Passes everything on to another transport but what its rule refuses. The rule is asked for each message of a send,
/// and with `None` for a ping. An error whose outcome is unknown is answered *after* the message was passed on.
pub(crate) struct Faulty {
    inner: Arc<dyn Transport>,
    capabilities: TransportCapabilities,
    rule: Mutex<Rule>,
    /// What is put around each subscriber.
    pub(crate) wrap: Mutex<Wrap>,
    sent: Mutex<Vec<Message>>,
    /// How long a send takes before anything is passed on.
    pub(crate) latency: Mutex<Duration>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Transport>, capabilities: TransportCapabilities) -> Arc<Self> {
        Arc::new(Self {
            inner,
            capabilities,
            rule: Mutex::new(Box::new(|_| None)),
            wrap: Mutex::new(Box::new(|subscriber| subscriber)),
            sent: Mutex::default(),
            latency: Mutex::default(),
        })
    }

    /// Fails what this rule names, from now on.
    pub(crate) fn fail(&self, rule: impl FnMut(Option<&Message>) -> Option<Error> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// What was passed on and taken, in that order.
    pub(crate) fn sent(&self) -> Vec<Message> {
        self.sent.lock().unwrap().clone()
    }

    async fn send_one(&self, message: &Message, stopped: &mut BTreeSet<(String, String)>) -> Result<Sent> {
        let key = message
            .key
            .as_ref()
            .filter(|_| self.capabilities.accepts_by_prefix)
            .map(|key| (message.topic.to_string(), key.to_string()));
        if key.as_ref().is_some_and(|key| stopped.contains(key)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                "an earlier message of this key was not accepted",
            ));
        }
        let failure = (self.rule.lock().unwrap())(Some(message));
        let answer = match failure {
            Some(error) if !error.is_outcome_unknown() => Err(error),
            failure => {
                let answer = self.inner.send(std::slice::from_ref(message)).await.remove(0);
                if answer.is_ok() {
                    self.sent.lock().unwrap().push(message.clone());
                }
                failure.map_or(answer, Err)
            }
        };
        if answer.is_err() {
            stopped.extend(key);
        }
        answer
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Transport for Faulty {
    fn info(&self) -> TransportInfo {
        TransportInfo::new("faulty", self.capabilities, "faulty:")
    }

    fn send<'s, 'b, 'a>(&'s self, batch: &'b [Message]) -> Answer<'a, Vec<Result<Sent>>>
    where
        's: 'a,
        'b: 'a,
    {
        Box::pin(async move {
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            let (mut answers, mut stopped) = (Vec::new(), BTreeSet::new());
            for message in batch {
                answers.push(self.send_one(message, &mut stopped).await);
            }
            answers
        })
    }

    fn ping<'s, 'a>(&'s self) -> Answer<'a, Result<()>>
    where
        's: 'a,
    {
        Box::pin(async move { (self.rule.lock().unwrap())(None).map_or(Ok(()), Err) })
    }

    fn declare<'s, 't, 'a>(&'s self, topology: &'t Topology) -> Answer<'a, Result<()>>
    where
        's: 'a,
        't: 'a,
    {
        self.inner.declare(topology)
    }

    fn subscribe<'s, 't, 'a>(&'s self, to: &'t Subscription) -> Answer<'a, Result<Box<dyn Subscriber>>>
    where
        's: 'a,
        't: 'a,
    {
        Box::pin(async move {
            let subscriber = self.inner.subscribe(to).await?;
            Ok((self.wrap.lock().unwrap())(subscriber))
        })
    }

    fn remove_group<'s, 'g, 'a>(&'s self, group: &'g GroupName) -> Answer<'a, Result<()>>
    where
        's: 'a,
        'g: 'a,
    {
        self.inner.remove_group(group)
    }

    fn lag<'s, 'g, 'a>(&'s self, group: &'g GroupName) -> Answer<'a, Result<u64>>
    where
        's: 'a,
        'g: 'a,
    {
        self.inner.lag(group)
    }

    fn close<'s, 'a>(&'s self) -> Answer<'a, Result<()>>
    where
        's: 'a,
    {
        self.inner.close()
    }
}
