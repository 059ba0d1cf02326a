/** One thing that a host needs, or that is good to know. */
export interface Finding {
  readonly check: string;
  /** `bad`: containers or mounts cannot work; `limited`: something falls short. */
  readonly state: "ok" | "limited" | "bad";
  readonly found: string;
  readonly next?: string;
}
