// Streams of the library, read and written in turn.

import { createHash } from 'node:crypto'
import { once } from 'node:events'

// The byte at i is i mod 251, so that bytes out of place are seen.
const PATTERN = Uint8Array.from({ length: 251 * 256 }, (_, i) => i % 251)

// Everything that comes; raises if the stream is reset.
export async function * read (stream) {
  const chunks = []
  let ended = stream.readableEnded
  let failure
  let wake = () => {}
  const when = (type, act) => stream.addEventListener(type, (event) => { act(event); wake() })
  when('message', ({ data }) => chunks.push(data.subarray()))
  when('end', () => { ended = true })
  when('close', ({ error }) => { failure = error })
  while (failure === undefined) {
    if (chunks.length > 0) {
      yield chunks.shift()
    } else if (ended) {
      return
    } else {
      await new Promise((resolve) => { wake = resolve })
    }
  }
  throw failure
}

export async function readOne (stream) {
  for await (const chunk of read(stream)) {
    return chunk
  }
}

// How much came, and its digest.
export async function readDigest (stream) {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of read(stream)) {
    size += chunk.byteLength
    hash.update(chunk)
  }
  return [size, hash.digest('hex')]
}

export async function write (stream, data) {
  if (!stream.send(data)) {
    await once(stream, 'drain')
  }
}

// Send the pattern, then the end.
export async function sendPattern (stream, size) {
  for (const piece of pieces(size)) {
    await write(stream, piece)
  }
  await stream.close()
}

export function digestOfPattern (size) {
  const hash = createHash('sha256')
  for (const piece of pieces(size)) {
    hash.update(piece)
  }
  return hash.digest('hex')
}

function * pieces (size) {
  for (; size > 0; size -= PATTERN.length) {
    yield PATTERN.subarray(0, size)
  }
}
