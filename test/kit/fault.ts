/** What the proxy does to a request whose `METHOD PATH` matches; the first rule that matches counts. */
export interface Fault {
  /** A regular expression over `GET /v2/name/blobs/sha256:…`. */
  readonly match: string;
  /** How many requests it hits before it is spent; default: all. */
  readonly times?: number;
  readonly action: /** Answers this status with a JSON body of the registry API, without asking upstream. */
    | {
        readonly kind: "status";
        readonly status: number;
        readonly headers?: Readonly<Record<string, string>>;
      }
    /** Never answers; the connection stays open. */
    | { readonly kind: "hang" }
    /** Closes the connection with a reset instead of an answer. */
    | { readonly kind: "reset" }
    /** Closes the connection after so many bytes of the body. */
    | { readonly kind: "truncate"; readonly afterBytes: number }
    /** Sends so many bytes of the body, then nothing more; the connection stays open. */
    | { readonly kind: "stall"; readonly afterBytes: number }
    /** Flips one bit of the body's byte at this place. */
    | { readonly kind: "corrupt"; readonly atByte: number }
    /** Drops the Range header, as a server without range support would; breaks off after so many bytes, if any are named. */
    | { readonly kind: "no_range"; readonly breakAfterBytes?: number };
}

export interface ProxyStats {
  readonly requests: number;
  /** Bytes from the server to clients, headers included. */
  readonly bytes: number;
  /** `METHOD PATH [RANGE]` of the last 10,000 requests. */
  readonly log: readonly string[];
}

export interface ProxySettings {
  readonly upstream: string;
  /** Before a request goes on to the server. */
  readonly delayMs: number;
  /** Over all connections together, from server to client; 0: no limit. */
  readonly bytesPerSecond: number;
  /** Connections that wait to be accepted; more are not answered at all. Absent: as many as the system likes. */
  readonly backlog?: number;
}
