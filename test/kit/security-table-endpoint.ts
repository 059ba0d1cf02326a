import type { Attack } from "./security-table.ts";

/** What comes with requests to endpoints, and with what containers answer. */
export const endpointAttacks: readonly Attack[] = [
  {
    attack:
      "a caller of an endpoint wants what is another's, pretends to be another, or hides a request in a request",
    defences: [
      [
        "an endpoint that is not public is told of to nobody outside of its workspace, nor what happens in it",
        "src/endpoint/front.test.ts: an endpoint that is not public is not there for others",
        "src/endpoint/front.test.ts: the traceback of a function is for its own workspace; others get an id",
        "src/endpoint/front.test.ts: is of no use where containers do not come up: the workspace is told why, others are not",
      ],
      [
        "what is ambiguous is refused, what the gateway says of a client no client can say",
        "src/endpoint/front-refusals.test.ts: is refused in words",
        "src/endpoint/front.test.ts: gets method, path, query, fields and body as they are, and its answer comes back as it is",
      ],
      [
        "a worker gives its containers requests of gateways alone, which ask for its certificate",
        "src/endpoint/forward-client.test.ts: a worker gives requests to containers for gateways alone: not for another worker, not for a stranger",
        "src/endpoint/forward-client.test.ts: a gateway sends nothing to who has not the certificate of the worker that is meant, or speaks no TLS",
      ],
    ],
  },
  {
    attack: "a container steals its callers' tokens, or passes what is broken or made up off as an answer",
    defences: [
      [
        "the cluster's tokens end at the gateway; an answer is whole, HTTP, and nobody's but the container's",
        "src/endpoint/front.test.ts: a token of the cluster never reaches a container; another credential does",
        "src/endpoint/front.test.ts: that dies in the middle of its answer breaks the client's: nobody takes a half for the whole",
        "src/endpoint/front-http2.test.ts: an answer that breaks off is no whole one, and the connection goes on",
        "src/runtime/requests/forwarder.test.ts: is no answer where it is %s",
      ],
    ],
  },
  {
    attack: "callers fill a gateway's memory, its queue, its connections or a container with what never ends",
    defences: [
      [
        "bodies stay with their senders, queues and times have bounds",
        "src/endpoint/front.test.ts: is given a large body no faster than it reads it, and the whole of it",
        "src/endpoint/front.test.ts: a request waits for the first container, in the order in which it came, and no longer than its time",
        "src/endpoint/front-refusals.test.ts: a sender who trickles his body has no container meanwhile, and his time ends",
        "src/rpc/idle-connections.test.ts: connections %s end on which nothing whole comes; not one that waits for its answer",
        "test/journey/endpoint.test.ts: bounds what waits and how long, and is there for those who may know of it",
      ],
    ],
  },
];
