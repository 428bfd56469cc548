//! The provider of `make bench`: answers at once, from memory, on one thread. Prints its port.
//!
//! The first element of the path says how: `sse` streams 200 chunks, `third` is unavailable the first
//! two times that it is asked the same (`x-bench-request`), and all others answer at once in the dialect
//! of the path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const CHUNKS: usize = 200;
const CHUNK: &str = concat!(
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","#,
    r#""choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}"#,
    "\n\n"
);
const CHAT: &str = concat!(
    r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":"#,
    r#"{"role":"assistant","content":"Hello from the provider of the benchmark."},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}"#
);
const GEMINI: &str = concat!(
    r#"{"candidates":[{"content":{"parts":[{"text":"Hello from the provider of the benchmark."}],"role":"model"},"#,
    r#""finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":12,"candidatesTokenCount":9,"#,
    r#""totalTokenCount":21},"modelVersion":"gemini-2.0-flash","responseId":"r"}"#
);
const UNAVAILABLE: &str = r#"{"error":{"message":"unavailable","type":"server_error"}}"#;

enum Answer {
    Whole(Option<Bytes>),
    /// So many chunks are left; whether the next one is due, so that each is written by itself.
    Stream(usize, bool),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Stream(0, _) => Poll::Ready(None),
            Answer::Stream(_, due @ false) => {
                *due = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Answer::Stream(left, due) => {
                (*left, *due) = (*left - 1, false);
                let piece = if *left == 0 { "data: [DONE]\n\n" } else { CHUNK };
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

thread_local! {
    static ASKED: RefCell<HashMap<HeaderValue, u8>> = RefCell::default();
}

/// Whether the request of this number has come twice before.
fn asked_twice(number: Option<&HeaderValue>) -> bool {
    let Some(number) = number else { return true };
    ASKED.with_borrow_mut(|asked| {
        let times = asked.entry(number.clone()).or_default();
        *times += 1;
        let third = *times > 2;
        if third {
            asked.remove(number);
        }
        third
    })
}

async fn serve(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    let third = path.starts_with("/third/") && asked_twice(request.headers().get("x-bench-request"));
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let whole = |text: &'static str| Answer::Whole(Some(Bytes::from_static(text.as_bytes())));
    let (status, kind, answer) = if path.starts_with("/sse/") {
        (StatusCode::OK, "text/event-stream", Answer::Stream(CHUNKS, false))
    } else if path.starts_with("/third/") && !third {
        (StatusCode::SERVICE_UNAVAILABLE, "application/json", whole(UNAVAILABLE))
    } else if path.ends_with(":generateContent") {
        (StatusCode::OK, "application/json", whole(GEMINI))
    } else {
        (StatusCode::OK, "application/json", whole(CHAT))
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("x-request-id", "req_0123456789abcdef")
        .header("openai-processing-ms", "250")
        .header("strict-transport-security", "max-age=31536000; includeSubDomains; preload")
        .header("alt-svc", "h3=\":443\"; ma=86400");
    Ok(response.body(answer).expect("constant headers are valid"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(serve)));
    }
}
