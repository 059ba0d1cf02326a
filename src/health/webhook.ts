/** What is known of a webhook; its address and what signs deliveries to it are sealed. */
export interface Webhook {
  readonly id: string;
  readonly workspaceId: string;
  readonly host: string;
  readonly createdAt: Date;
  readonly lastDeliveredAt: Date | null;
  readonly lastError: string | null;
  /** Its receiver wants nothing more. */
  readonly disabledAt: Date | null;
  /** Alerts on their way. */
  readonly pending: number;
  /** Alerts that were given up. */
  readonly givenUp: number;
}

/** Of a workspace. */
export const webhooksMax = 10;
