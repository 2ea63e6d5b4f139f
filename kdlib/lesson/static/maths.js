// The mathematics of the pictures that the browser draws. Logits are arrays of numbers, one per class.

/** p_k = exp(z_k / T) / sum_j exp(z_j / T), stable for any finite logits. */
export function softmax(logits, temperature) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp((logit - largest) / temperature));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** ln p_k of the same softmax, finite even where p_k is too small to be told from 0. */
export function logSoftmax(logits, temperature) {
  const largest = Math.max(...logits);
  const scaled = logits.map((logit) => (logit - largest) / temperature);
  const logTotal = Math.log(scaled.reduce((sum, value) => sum + Math.exp(value), 0));
  return scaled.map((value) => value - logTotal);
}

/** H(p) = -sum_k p_k ln p_k, in nats; a class of probability 0 adds nothing. */
export function entropy(probabilities) {
  return probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
}

/** The label as a distribution: 1 for its class, 0 elsewhere. */
export function oneHot(classes, label) {
  return Array.from({ length: classes }, (_, index) => (index === label ? 1 : 0));
}

/** alpha * first + (1 - alpha) * second, element by element. */
export function mix(alpha, first, second) {
  return first.map((value, index) => alpha * value + (1 - alpha) * second[index]);
}

/**
 * The loss of one image and its two terms, which are not weighted:
 *   task    = CE = -ln q_label, q = softmax(z) at T = 1
 *   distill = T^2 KL(p || q), p = softmax(z_teacher / T), q = softmax(z / T)
 *   total   = alpha * distill + (1 - alpha) * task
 */
export function lossTerms(studentLogits, teacherLogits, label, temperature, alpha) {
  const task = -logSoftmax(studentLogits, 1)[label];
  const [student, teacher] = [studentLogits, teacherLogits].map((logits) => logSoftmax(logits, temperature));
  const divergence = teacher.reduce((sum, logP, index) => sum + Math.exp(logP) * (logP - student[index]), 0);
  const distill = temperature ** 2 * divergence;
  return { task, distill, total: alpha * distill + (1 - alpha) * task };
}

/** The largest of 1, 2 and 5 times a power of ten that is not above the length: a step between round numbers. */
export function roundStep(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return power * [5, 2, 1].find((factor) => factor * power <= length);
}

/** Length of a vector. */
export function norm(vector) {
  return Math.hypot(...vector);
}

/** The angle between two vectors in radians; 0 where one of them is null. */
export function angle(first, second) {
  const lengths = norm(first) * norm(second);
  if (lengths === 0) return 0;
  const dot = first.reduce((sum, value, index) => sum + value * second[index], 0);
  return Math.acos(Math.min(1, Math.max(-1, dot / lengths)));
}

/**
 * Gradients with respect to the student's logits of one image:
 *   task    = d CE / dz                 = softmax(z) - onehot(label)
 *   distill = d T^2 KL(teacher^T || student^T) / dz = T (softmax(z / T) - softmax(z_teacher / T))
 *   total   = alpha * distill + (1 - alpha) * task
 */
export function gradients(studentLogits, teacherLogits, label, temperature, alpha) {
  const hard = oneHot(studentLogits.length, label);
  const task = softmax(studentLogits, 1).map((p, index) => p - hard[index]);
  const teacher = softmax(teacherLogits, temperature);
  const distill = softmax(studentLogits, temperature).map((p, index) => temperature * (p - teacher[index]));
  return { task, distill, total: mix(alpha, distill, task) };
}
