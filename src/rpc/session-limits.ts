/**
 * Bun 1.4.5 counts a frame of some ordinary calls as an invalid one, and at the thousandth breaks the connection with the calls
 * that are under way. What an invalid frame costs is what a valid one does.
 */
export const sessionLimits: object = { maxSessionInvalidFrames: 2 ** 31 - 1 };

/**
 * Where strangers connect: what one connection may ask at once. What is beyond it waits with its client (who has not heard of it yet
 * is refused), and not here, where tens of thousands that come in one go would be in everybody's way. Between our own processes calls may last as long as containers do, and
 * are not counted.
 */
export const openSessionLimits: object = { ...sessionLimits, settings: { maxConcurrentStreams: 1000 } };
